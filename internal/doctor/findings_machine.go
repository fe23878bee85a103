package doctor

import (
	"fmt"
	"slices"
	"time"
)

// How much is too little, and how far is too far.
const (
	clockLimit    = time.Second
	littleRoom    = 1 << 30 // bytes
	littlePercent = 5
	expiresSoon   = 30 * 24 * time.Hour
)

// clocks compares the companions' clocks with each other, and each with itself.
func clocks(p *Picture) []Finding {
	var found []Finding
	usual := usualOffset(p.Companions)
	for _, c := range p.Companions {
		if least, most, ok := offset(&c); ok && (least-usual > clockLimit || usual-most > clockLimit) {
			found = append(found, Finding{
				Code: "clock_off", Severity: Problem, Node: c.Member.Name,
				What: fmt.Sprintf("its clock is %v off the others'", ((least+most)/2 - usual).Round(100*time.Millisecond)),
				Why:  "leases do not depend on it, but certificates, the times in history and logs do",
				Fix:  "on " + c.Member.Name + ": chronyc tracking, or timedatectl, tells whether it is kept in time",
			})
		}
		if by, is := jump(&c); is {
			found = append(found, jumped(c.Member.Name, "its clock", by))
		}
	}
	if by := p.Local.Jumped; by.Abs() > clockLimit {
		found = append(found, jumped("", "this machine's clock", by))
	}
	return found
}

func jumped(node, what string, by time.Duration) Finding {
	return Finding{
		Code: "clock_jump", Severity: Problem, Node: node,
		What: fmt.Sprintf("%s jumped by %v while it was looked at", what, by.Round(100*time.Millisecond)),
		Why:  "somebody sets it, or the machine was frozen or moved; leases do not depend on it, but a frozen primary loses its lease",
		Fix:  "chronyc tracking, or timedatectl; look for suspend and live migration of the virtual machine",
	}
}

// offset bounds how far a companion's clock is ahead of ours. It told its second, between
// our question and its answer.
func offset(c *Companion) (least, most time.Duration, ok bool) {
	if c.Sight == nil || c.Sight.Date.IsZero() {
		return 0, 0, false
	}
	return c.Sight.Date.Sub(c.Sight.Received), c.Sight.Date.Add(time.Second).Sub(c.Sight.Sent), true
}

// usualOffset is what most clocks have, ours among them.
func usualOffset(companions []Companion) time.Duration {
	all := []time.Duration{0}
	for _, c := range companions {
		if least, most, ok := offset(&c); ok {
			all = append(all, (least+most)/2)
		}
	}
	slices.Sort(all)
	return all[(len(all)-1)/2]
}

// jump compares how far a companion's clock went on with how far ours did, which does not
// jump between two readings.
func jump(c *Companion) (by time.Duration, is bool) {
	if c.Sight == nil || c.Later == nil || c.Sight.Date.IsZero() || c.Later.Date.IsZero() {
		return 0, false
	}
	by = c.Later.Date.Sub(c.Sight.Date) - c.Later.Sent.Sub(c.Sight.Sent)
	unsure := time.Second + c.Sight.Received.Sub(c.Sight.Sent) + c.Later.Received.Sub(c.Later.Sent)
	return by, by.Abs() > unsure+clockLimit
}

// disks is about room.
func disks(p *Picture) []Finding {
	var found []Finding
	for _, d := range p.Local.Disks {
		if d.Total == 0 || d.Free >= littleRoom && d.Free >= d.Total/100*littlePercent {
			continue
		}
		found = append(found, Finding{
			Code: "disk_space", Severity: Problem,
			What: fmt.Sprintf("%s of %s are free for %s, %s", gigabytes(int64(d.Free)), gigabytes(int64(d.Total)), d.What, d.Dir),
			Why:  "a PostgreSQL that cannot write its WAL stops, and a companion that cannot write its log votes no more",
			Fix:  "make room: slots that hold WAL (helios doctor --dsn), old logs, diverged copies beside the data directory",
		})
	}
	return found
}

// certificates is about those that are of no use, or will not be soon.
func certificates(p *Picture) []Finding {
	var found []Finding
	broken := func(what string) {
		found = append(found, Finding{
			Code: "certificate", Severity: Problem, What: what,
			Why: "companions, replicas and drivers do not let each other in without it",
			Fix: "helios cert renew --dir CA DIR, and copy the files to the node; they are taken without a restart",
		})
	}
	if p.Local.CertsErr != nil {
		broken(p.Local.CertsErr.Error())
	}
	for i := range p.Local.Certs {
		c := &p.Local.Certs[i]
		switch left := c.NotAfter.Sub(p.Now); {
		case c.Problem != "":
			broken(c.File + ": " + c.Problem)
		case left < expiresSoon:
			broken(fmt.Sprintf("%s expires in %d days", c.File, int(left.Hours()/24)))
		}
	}
	return found
}
