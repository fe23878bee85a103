package spelling

// Distance returns how many bytes have to be inserted, deleted or replaced to
// make b of a (Levenshtein's distance).
func Distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a's first i bytes to every beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
