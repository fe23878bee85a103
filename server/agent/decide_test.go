package agent

import (
	"testing"
	"time"

	"github.com/heliosdb/helios/failover"
)

func TestTheNextStep(t *testing.T) {
	ready := func(epoch failover.Epoch, primary string) func(*view) {
		return func(v *view) {
			v.as = failover.Assignment{Epoch: epoch, Phase: failover.PhaseReady, Primary: failover.Member{Name: primary}}
		}
	}
	elected := func(epoch failover.Epoch, primary string) func(*view) {
		return func(v *view) { ready(epoch, primary)(v); v.as.Phase = failover.PhaseElected }
	}
	fenced := func(epoch failover.Epoch) func(*view) {
		return func(v *view) { v.as = failover.Assignment{Epoch: epoch, Phase: failover.PhaseFenced} }
	}
	down := func(v *view) { v.running, v.known = false, false }
	primary := func(v *view) { v.standby = false }
	reigned := func(epoch failover.Epoch) func(*view) { return func(v *view) { v.promise.Reign = epoch } }
	alone := func(v *view) { v.alone = true }
	withdrawn := func(v *view) { v.withdrawn = true }
	told := func(v *view) { v.answered, v.downFor = true, restartPatience }
	for name, tt := range map[string]struct {
		edit []func(*view)
		want step
	}{
		"a standby of another follows it":                       {[]func(*view){ready(2, "n2")}, stepFollow},
		"of one that is just elected, too":                      {[]func(*view){elected(2, "n2")}, stepFollow},
		"one whose log may be nobody's waits until it is known": {[]func(*view){elected(3, "n2"), func(v *view) { v.unproven = true }}, stepNone},
		"and follows then, or is found to be astray":            {[]func(*view){ready(3, "n2"), func(v *view) { v.unproven = true }}, stepFollow},
		"one of which the log does not tell yet waits for it":   {[]func(*view){ready(3, "n2"), func(v *view) { v.unproven, v.behind = true, true }}, stepNone},
		"stopped or not": {[]func(*view){ready(3, "n2"), down, func(v *view) { v.unproven, v.behind = true, true }}, stepNone},
		"but a primary that was replaced does not":             {[]func(*view){ready(3, "n2"), primary, reigned(2), func(v *view) { v.unproven, v.behind = true, true }}, stepHardStop},
		"whose WAL is the cluster's need not wait for the log": {[]func(*view){ready(3, "n2"), func(v *view) { v.behind = true }}, stepFollow},
		"one that replays, so that its log may be nobody's":    {[]func(*view){ready(3, "n2"), func(v *view) { v.unproven, v.replaying = true, true }}, stepRejoin},
		"and if it is the cluster's it follows":                {[]func(*view){ready(3, "n2"), func(v *view) { v.replaying = true }}, stepFollow},
		"nothing before the leader has spoken":                 {[]func(*view){ready(2, "n2"), func(v *view) { v.assigned = false }}, stepNone},
		"nothing for an epoch that was sealed":                 {[]func(*view){ready(2, "n2"), func(v *view) { v.promise.Sealed = 3 }}, stepNone},
		"nothing while the cluster is forming":                 {[]func(*view){func(v *view) { v.as.Phase = failover.PhaseForming }}, stepNone},
		"nothing without a data directory":                     {[]func(*view){ready(2, "n2"), down, func(v *view) { v.data = false }}, stepNone},
		"nothing while it is not known what runs":              {[]func(*view){ready(2, "n2"), func(v *view) { v.known = false }}, stepNone},
		"the primary stays it":                                 {[]func(*view){ready(2, "n1"), primary}, stepReign},
		"the elected one that is primary already, too":         {[]func(*view){elected(3, "n1"), primary}, stepReign},
		"an elected standby waits for its promotion":           {[]func(*view){elected(3, "n1")}, stepNone},
		"a crashed primary waits for what the leader says":     {[]func(*view){ready(2, "n1"), primary, down, reigned(2)}, stepNone},
		"and is started again if that is nothing new":          {[]func(*view){ready(2, "n1"), primary, down, reigned(2), told}, stepStartPrimary},
		"but not if it was never primary in this epoch":        {[]func(*view){ready(2, "n1"), primary, down, reigned(1), told}, stepNone},
		"and not while nobody is":                              {[]func(*view){fenced(3), primary, down, reigned(2), told}, stepNone},
		"nor before its promotion":                             {[]func(*view){elected(3, "n1"), primary, down, reigned(2), told}, stepNone},
		"and once another is elected it waits for that one":    {[]func(*view){elected(3, "n2"), primary, down, reigned(2), told}, stepNone},
		"and comes back when that one is ready":                {[]func(*view){ready(3, "n2"), primary, down, reigned(2), told}, stepRejoin},
		"a primary that is outvoted is stopped for now":        {[]func(*view){ready(2, "n1"), primary, reigned(2), alone}, stepWithdraw},
		"in a fenced epoch, too":                               {[]func(*view){fenced(3), primary, reigned(2), alone}, stepWithdraw},
		"and when a newer one was sealed":                      {[]func(*view){ready(2, "n1"), primary, reigned(2), alone, func(v *view) { v.promise.Sealed = 3 }}, stepWithdraw},
		"but never before the leader has spoken":               {[]func(*view){ready(2, "n1"), primary, alone, func(v *view) { v.assigned = false }}, stepNone},
		"and no standby":                                       {[]func(*view){ready(2, "n2"), alone}, stepFollow},
		"one that was stopped waits until the leader speaks":   {[]func(*view){ready(2, "n1"), primary, down, reigned(2), withdrawn}, stepNone},
		"and then is started at once":                          {[]func(*view){ready(2, "n1"), primary, down, reigned(2), withdrawn, func(v *view) { v.answered = true }}, stepStartPrimary},
		"or as a standby of who was elected meanwhile":         {[]func(*view){ready(3, "n2"), primary, down, reigned(2), withdrawn, told}, stepRejoin},
		"a primary that was replaced is stopped":               {[]func(*view){ready(3, "n2"), primary, reigned(2)}, stepHardStop},
		"as soon as another is elected":                        {[]func(*view){elected(3, "n2"), primary, reigned(2)}, stepHardStop},
		"one that reigns in the same epoch only after a grace": {[]func(*view){ready(2, "n2"), primary, reigned(2)}, stepNone},
		"which ends":                                          {[]func(*view){ready(2, "n2"), primary, reigned(2), func(v *view) { v.fencedFor = v.grace }}, stepHardStop},
		"a primary in a fenced epoch goes on":                 {[]func(*view){fenced(3), primary, reigned(2)}, stepNone},
		"a standby that does not run starts in a fenced one":  {[]func(*view){fenced(3), down}, stepStartStandby},
		"but not one that was told to stop":                   {[]func(*view){fenced(3), down, func(v *view) { v.stopped = true }}, stepNone},
		"a standby that runs goes on in a fenced one":         {[]func(*view){fenced(3)}, stepNone},
		"a standby that does not run rejoins":                 {[]func(*view){ready(3, "n2"), down}, stepRejoin},
		"also one that was stopped in order":                  {[]func(*view){ready(3, "n2"), primary, down, func(v *view) { v.stopped = true }}, stepRejoin},
		"one past the fork is rewound":                        {[]func(*view){ready(3, "n2"), func(v *view) { v.diverged = true }}, stepRejoin},
		"but not before the fork is known":                    {[]func(*view){elected(3, "n2"), func(v *view) { v.diverged = true }}, stepNone},
		"a standby is made anew by an operator's wish":        {[]func(*view){ready(3, "n2"), func(v *view) { v.anew = true }}, stepClone},
		"a running primary of another reign is stopped first": {[]func(*view){ready(3, "n2"), primary, reigned(2), func(v *view) { v.anew = true }}, stepHardStop},
		"a standby whose WAL is gone is made anew":            {[]func(*view){ready(3, "n2"), func(v *view) { v.stranded = true }}, stepClone},
		"but not before there is a primary":                   {[]func(*view){elected(3, "n2"), func(v *view) { v.stranded = true }}, stepFollow},
		"the primary is never made anew":                      {[]func(*view){ready(3, "n1"), primary, func(v *view) { v.anew = true }}, stepReign},
	} {
		t.Run(name, func(t *testing.T) {
			v := view{me: "n1", assigned: true, data: true, standby: true, running: true, known: true, grace: time.Second}
			for _, edit := range tt.edit {
				edit(&v)
			}
			if got := decide(v); got != tt.want {
				t.Errorf("decide(%+v) = %q, want %q", v, got, tt.want)
			}
		})
	}
}
