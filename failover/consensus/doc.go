// Package consensus keeps the log of [failover.Command]s the same on all
// companions of a cluster, and says who leads it. It is hashicorp/raft with a
// store on disk; docs/adr/0013 says why.
//
// A [Node] is one companion's part. Its id is the name of its [failover.Member]
// and never changes; its address may, by joining again. What the log has come to
// is a [failover.State], which a node hands out as soon as it knows it.
//
// # Invariants
//
//   - A command counts once a majority of the voters has it on disk, and then
//     it is applied everywhere, in the same order.
//   - A State says what was agreed, not who may act: after a restart old states pass
//     by, and a node that is cut off goes on showing the last one it heard of.
//   - Leadership is reported only when everything that was committed before is in
//     State. [Node.Verify] says whether it still holds; only voters count for that.
//   - No stream is set up with another node than the one that was meant, nor with
//     one of another cluster: addresses are given to other machines, and a
//     vote that is counted twice would let two leaders be.
//   - When Close returns, nothing of the node is running.
//
// # Who may call
//
// The companion server alone: the driver never compiles this package. All methods
// are safe for concurrent use.
package consensus
