package router

// Tokens returns the tokens of sql, without what stands between them.
func Tokens(sql string) []string {
	var tokens []string
	s := scanner{src: sql}
	for t := s.next(); t.kind != end; t = s.next() {
		tokens = append(tokens, sql[t.start:t.end])
	}
	return tokens
}

// Groups returns the lists of the built-in function table by their effect.
func Groups() map[uint8][]string {
	groups := make(map[uint8][]string)
	for i := range functions {
		if f := &functions[i]; f.name != "" {
			groups[uint8(f.effect)] = append(groups[uint8(f.effect)], f.name)
		}
	}
	return groups
}
