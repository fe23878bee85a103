package replication

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// prepared returns a password as SASLprep (RFC 4013) has it, so that it is the
// same however it was typed. As in PostgreSQL, one that the profile forbids is
// taken as it is. Characters that Unicode 3.2 did not have yet are not told apart
// here, which PostgreSQL takes as they are too; make the verifier there if
// a password has any that normalization changes.
func prepared(password string) string {
	if !utf8.ValidString(password) {
		return password
	}
	if strings.IndexFunc(password, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return password
	}
	text := norm.NFKC.String(strings.Map(mapped, password))
	if text == "" || strings.ContainsFunc(text, prohibited) || !oneDirection(text) {
		return password
	}
	return text
}

// mapped is the mapping of RFC 4013, section 2.1: some characters are nothing,
// and every space is a plain one.
func mapped(r rune) rune {
	switch {
	case r == 0xAD, r == 0x34F, r == 0x1806, 0x180B <= r && r <= 0x180D, r == 0x200C, r == 0x200D,
		r == 0x2060, 0xFE00 <= r && r <= 0xFE0F, r == 0xFEFF:
		return -1
	case unicode.Is(unicode.Zs, r), r == 0x200B:
		return ' '
	}
	return r
}

// prohibited is the prohibited output of RFC 4013, section 2.3.
func prohibited(r rune) bool {
	switch {
	case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Co, r), unicode.Is(unicode.Noncharacter_Code_Point, r),
		r == 0x340, r == 0x341, r == 0x6DD, r == 0x70F, r == 0x180E, 0x200C <= r && r <= 0x200F, 0x2028 <= r && r <= 0x202E,
		0x2060 <= r && r <= 0x2063, 0x206A <= r && r <= 0x206F, 0x2FF0 <= r && r <= 0x2FFB, r == 0xFEFF,
		0xFFF9 <= r && r <= 0xFFFD, 0x1D173 <= r && r <= 0x1D17A, 0xE0000 <= r && r <= 0xE007F:
		return true
	}
	return false
}

// oneDirection is the rule of RFC 3454, section 6: text that is written from
// right to left begins and ends with such a letter, and has none of the others.
func oneDirection(text string) bool {
	rightToLeft := func(r rune) bool {
		return unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana) && !unicode.Is(unicode.Mn, r)
	}
	if !strings.ContainsFunc(text, rightToLeft) {
		return true
	}
	first, _ := utf8.DecodeRuneInString(text)
	last, _ := utf8.DecodeLastRuneInString(text)
	leftToRight := func(r rune) bool { return unicode.IsLetter(r) && !rightToLeft(r) }
	return rightToLeft(first) && rightToLeft(last) && !strings.ContainsFunc(text, leftToRight)
}
