package router

import "strings"

// leadingHint returns what the comments in front of the first token ask for. If
// they contradict each other, the primary wins.
func leadingHint(sql string) Hint {
	hint := HintNone
	s := scanner{src: sql}
	for {
		comment, ok := s.leadingComment()
		if !ok {
			return hint
		}
		switch strings.TrimSpace(comment) {
		case "helios:primary":
			return HintPrimary
		case "helios:replica":
			hint = HintReplica
		}
	}
}

// leadingComment returns the text of the next comment, if only white space
// stands before it.
func (s *scanner) leadingComment() (string, bool) {
	for s.pos < len(s.src) && classes[s.src[s.pos]] == classSpace {
		s.pos++
	}
	start := s.pos + 2
	switch {
	case s.at(0) == '-' && s.at(1) == '-':
		s.skipLine()
		return s.src[start:s.pos], true
	case s.at(0) == '/' && s.at(1) == '*':
		s.skipBlock()
		return strings.TrimSuffix(s.src[start:s.pos], "*/"), !s.unterminated
	}
	return "", false
}
