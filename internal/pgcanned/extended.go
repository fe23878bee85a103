package pgcanned

import "encoding/binary"

// parse makes a statement known under a name.
func (s *session) parse(f fields) {
	name, text := f.text(), f.text()
	statements := s.lookUp(text)
	switch {
	case len(statements) != 1:
		s.fail("42601", "cannot insert multiple commands into a prepared statement")
		return
	case statements[0].unknown != "":
		s.fail("42601", statements[0].unknown)
		return
	}
	if s.prepared[string(name)] != statements[0] {
		s.prepared[string(name)] = statements[0]
	}
	s.out = append(s.out, '1', 0, 0, 0, 4)
}

// lookUp returns the statements of a text, which it remembers.
func (s *session) lookUp(text []byte) []*statement {
	statements := s.known[string(text)]
	if statements == nil {
		statements = compile(string(text))
		if len(s.known) == mostKnown {
			clear(s.known)
		}
		s.known[string(text)] = statements
	}
	return statements
}

// bind makes a prepared statement the portal. Parameters are not looked at: the
// answer is the same for all.
func (s *session) bind(f fields) {
	f.text()
	st := s.prepared[string(f.text())]
	if st == nil {
		s.fail("26000", "prepared statement does not exist")
		return
	}
	f.skip(2 * f.short())
	given := f.short()
	for range given {
		f.skip(f.long())
	}
	if given != st.params {
		s.fail("08P01", "bind message supplies the wrong number of parameters")
		return
	}
	s.bound, s.formats = st, s.formats[:0]
	for range f.short() {
		s.formats = append(s.formats, int16(f.short()))
	}
	s.out = append(s.out, '2', 0, 0, 0, 4)
}

// format returns the format in which column i of the portal is wanted.
func (s *session) format(i int) int16 {
	switch {
	case len(s.formats) == 1:
		return s.formats[0]
	case i < len(s.formats):
		return s.formats[i]
	default:
		return 0
	}
}

// describe says what a statement takes and returns, or what the portal does.
func (s *session) describe(f fields) {
	what, st := f.b[0], s.bound
	if what == 'S' {
		f.skip(1)
		st = s.prepared[string(f.text())]
	}
	if st == nil {
		s.fail("26000", "what is to be described does not exist")
		return
	}
	if what == 'S' {
		s.out = append(s.out, st.takes...)
	}
	start := len(s.out)
	s.out = append(s.out, st.returns...)
	if what == 'P' {
		for i, at := range st.formatAt {
			s.out[start+at] = byte(s.format(i))
		}
	}
}

// execute does what a statement says and answers it.
func (s *session) execute(st *statement) {
	switch {
	case s.status == 'E' && st.kind != commits && st.kind != rollsBack:
		s.fail("25P02", "current transaction is aborted, commands ignored until end of transaction block")
		return
	case st.kind == writes && !s.node.primary.Load():
		s.fail("25006", "cannot execute "+st.verb+" in a read-only transaction")
		return
	}
	tag := st.tag
	switch st.kind {
	case opens:
		s.status = 'T'
	case commits:
		if s.status == 'E' {
			tag = rolledBack
		}
		s.end(s.status != 'E')
	case rollsBack:
		s.end(false)
	case writes:
		s.wrote = true
	case reads:
		for range st.rows {
			s.row(st)
		}
	case other:
	}
	s.out = append(s.out, tag...)
}

// row appends one row in the portal's formats.
func (s *session) row(st *statement) {
	dst, message := open(s.out, 'D')
	dst = append(dst, byte(len(st.columns)>>8), byte(len(st.columns)))
	for i := range st.columns {
		at := len(dst)
		var ok bool
		dst, ok = st.columns[i].value(append(dst, "\xff\xff\xff\xff"...), s.node, s.format(i) == binaryFormat)
		if ok { // it is not NULL
			binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		}
	}
	s.out = shut(dst, message)
}

// end ends the transaction.
func (s *session) end(commit bool) {
	if commit && s.wrote {
		s.node.cluster.Grow()
	}
	s.status, s.wrote = 'I', false
}

// endImplicit ends the transaction of a statement outside a block.
func (s *session) endImplicit() {
	if s.status == 'I' {
		s.end(true)
	}
}

// query answers a message of the simple protocol.
func (s *session) query(text []byte) {
	s.bound, s.formats = nil, s.formats[:0]
	for _, st := range s.lookUp(text) {
		if st.unknown != "" {
			s.fail("42601", st.unknown)
			break
		}
		if st.kind == reads {
			s.out = append(s.out, st.returns...)
		}
		if s.execute(st); s.skipping {
			break
		}
	}
	s.skipping = false
	s.endImplicit()
	s.ready()
}

// fail answers with an error; the rest up to the Sync is skipped.
func (s *session) fail(code, text string) {
	s.out = failure(s.out, "ERROR", code, text)
	s.skipping, s.wrote = true, false
	if s.status == 'T' {
		s.status = 'E'
	}
}

// ready reports a change of the node's role, and that the session waits.
func (s *session) ready() {
	if standby := !s.node.primary.Load(); standby != s.standby {
		s.standby = standby
		s.out = message(s.out, 'S', "in_hot_standby", onOff(standby))
	}
	s.out = append(s.out, 'Z', 0, 0, 0, 5, s.status)
}
