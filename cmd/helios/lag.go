package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"time"

	"github.com/heliosdb/helios/lag/stats"
)

// lagCommand shows how far replicas are behind.
func lagCommand() command {
	return companionCommand(command{
		name:    "lag",
		summary: "show how old what replicas show is, now and over time",
		about: `LAG is the age of the data that a replica's queries see; clocks of two machines are never
compared for it. BEHIND is the WAL that it has not replayed. TREND is how much lag it
gains in a second, over the last minute. The others are what the lag was in the last minute, ten
minutes and hour: as much or less for half of the time, 95% and 99% of it.

The exit code is 1 if a replica's lag is more than --max, or not known.`,
	}, func(fs *flag.FlagSet, c *companion) action {
		limit := fs.Duration("max", 0, "`DURATION` of lag that is too much; 0 accepts any")
		return func(ctx context.Context, s streams, args []string) error {
			if err := c.noArguments(args); err != nil {
				return err
			}
			measured, err := c.client.Lag(ctx)
			if err != nil {
				return err
			}
			var report stats.Report
			if err := json.Unmarshal(measured, &report); err != nil {
				return err
			}
			if c.asJSON {
				err = writeJSON(s.out, measured)
			} else {
				err = writeLag(s.out, &report)
			}
			if err != nil || *limit <= 0 {
				return err
			}
			return lagVerdict(&report, *limit)
		}
	})
}

// lagVerdict is the error of a replica that is further behind than limit.
func lagVerdict(r *stats.Report, limit time.Duration) error {
	for i := range r.Replicas {
		replica := &r.Replicas[i]
		switch {
		case replica.LagMS == nil:
			return failed(fmt.Errorf("lag: that of %s is not known", replica.Name), "helios status says how it is")
		case inTime(*replica.LagMS) > limit:
			return failed(fmt.Errorf("lag: %s is %s behind, more than %v", replica.Name, lagOf(replica), limit), "")
		}
	}
	return nil
}

// writeLag writes a line for each replica.
func writeLag(w io.Writer, r *stats.Report) error {
	t := newTable("REPLICA", "LAG", "BEHIND", "TREND", "1 MIN P50/P95/P99", "10 MIN", "1 H")
	for i := range r.Replicas {
		replica := &r.Replicas[i]
		missing := cell{text: dash}
		if replica.BehindBytes != nil {
			missing.text = readableBytes(int64(*replica.BehindBytes))
		}
		t.add(cell{text: replica.Name}, cell{text: lagOf(replica)}, missing, cell{text: fmt.Sprintf("%+.0fms/s", replica.Trend)},
			quantiles(replica.OneMinute), quantiles(replica.TenMinutes), quantiles(replica.OneHour))
	}
	return t.write(w)
}

// lagOf is the newest lag of a replica.
func lagOf(r *stats.ReplicaReport) string {
	switch {
	case r.LagMS == nil:
		return dash
	case r.AtLeast:
		return "more than " + age(inTime(*r.LagMS))
	}
	return age(inTime(*r.LagMS))
}

// quantiles are what the lag was most of the time.
func quantiles(q stats.Quantiles) cell {
	if q.Samples == 0 {
		return cell{text: dash}
	}
	return cell{text: age(inTime(q.P50)) + "/" + age(inTime(q.P95)) + "/" + age(inTime(q.P99))}
}

// inTime is a number of milliseconds as a time.
func inTime(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }
