package server

import (
	"time"

	"github.com/heliosdb/helios/lag/stats"
)

// observe says where everybody stood by the newest bulletin. What a node told is as
// old as the bulletin says, and a little older on its way here, which makes lag larger
// and never smaller.
func (s *Server) observe(now time.Time) stats.Observation {
	b, at := s.board.read()
	o := stats.Observation{At: now}
	for _, n := range b.Nodes {
		switch n.Role {
		case "primary":
			if n.Name == b.Primary {
				o.Primary = stats.Primary{Name: n.Name, LSN: n.CurrentLSN, At: at.Add(-n.Age)}
			}
		case "replica":
			o.Replicas = append(o.Replicas, stats.Replica{
				Name: n.Name, WriteLSN: n.ReceiveLSN, FlushLSN: n.ReceiveLSN, ReplayLSN: n.ReplayLSN,
				Unknown: n.ReplayLSN == 0 || n.Timeline != b.Timeline,
			})
		case "unknown":
			o.Replicas = append(o.Replicas, stats.Replica{Name: n.Name, Unknown: true})
		}
	}
	return o
}
