package lengths

type counter int

func (n *counter) eightyLines() (sum int) {
	sum += 0
	sum += 1
	sum += 2
	sum += 3
	sum += 4
	sum += 5
	sum += 6
	sum += 7
	sum += 8
	sum += 9
	sum += 10
	sum += 11
	sum += 12
	sum += 13
	sum += 14
	sum += 15
	sum += 16
	sum += 17
	sum += 18
	sum += 19
	sum += 20
	sum += 21
	sum += 22
	sum += 23
	sum += 24
	sum += 25
	sum += 26
	sum += 27
	sum += 28
	sum += 29
	sum += 30
	sum += 31
	sum += 32
	sum += 33
	sum += 34
	sum += 35
	sum += 36
	sum += 37
	sum += 38
	sum += 39
	sum += 40
	sum += 41
	sum += 42
	sum += 43
	sum += 44
	sum += 45
	sum += 46
	sum += 47
	sum += 48
	sum += 49
	sum += 50
	sum += 51
	sum += 52
	sum += 53
	sum += 54
	sum += 55
	sum += 56
	sum += 57
	sum += 58
	sum += 59
	sum += 60
	sum += 61
	sum += 62
	sum += 63
	sum += 64
	sum += 65
	sum += 66
	sum += 67
	sum += 68
	sum += 69
	sum += 70
	sum += 71
	sum += 72
	sum += 73
	sum += 74
	sum += 75
	sum += 76
	return sum
}

func (n *counter) eightyOneLines() (sum int) {
	sum += 0
	sum += 1
	sum += 2
	sum += 3
	sum += 4
	sum += 5
	sum += 6
	sum += 7
	sum += 8
	sum += 9
	sum += 10
	sum += 11
	sum += 12
	sum += 13
	sum += 14
	sum += 15
	sum += 16
	sum += 17
	sum += 18
	sum += 19
	sum += 20
	sum += 21
	sum += 22
	sum += 23
	sum += 24
	sum += 25
	sum += 26
	sum += 27
	sum += 28
	sum += 29
	sum += 30
	sum += 31
	sum += 32
	sum += 33
	sum += 34
	sum += 35
	sum += 36
	sum += 37
	sum += 38
	sum += 39
	sum += 40
	sum += 41
	sum += 42
	sum += 43
	sum += 44
	sum += 45
	sum += 46
	sum += 47
	sum += 48
	sum += 49
	sum += 50
	sum += 51
	sum += 52
	sum += 53
	sum += 54
	sum += 55
	sum += 56
	sum += 57
	sum += 58
	sum += 59
	sum += 60
	sum += 61
	sum += 62
	sum += 63
	sum += 64
	sum += 65
	sum += 66
	sum += 67
	sum += 68
	sum += 69
	sum += 70
	sum += 71
	sum += 72
	sum += 73
	sum += 74
	sum += 75
	sum += 76
	sum += 77
	return sum
}

func longTable() []int {
	return []int{
		0,
		1,
		2,
		3,
		4,
		5,
		6,
		7,
		8,
		9,
		10,
		11,
		12,
		13,
		14,
		15,
		16,
		17,
		18,
		19,
		20,
		21,
		22,
		23,
		24,
		25,
		26,
		27,
		28,
		29,
		30,
		31,
		32,
		33,
		34,
		35,
		36,
		37,
		38,
		39,
		40,
		41,
		42,
		43,
		44,
		45,
		46,
		47,
		48,
		49,
		50,
		51,
		52,
		53,
		54,
		55,
		56,
		57,
		58,
		59,
		60,
		61,
		62,
		63,
		64,
		65,
		66,
		67,
		68,
		69,
		70,
		71,
		72,
		73,
		74,
		75,
		76,
		77,
		78,
		79,
		80,
		81,
		82,
		83,
		84,
		85,
		86,
		87,
		88,
		89,
	}
}
