// Package config is what an operator says to a companion before it starts.
//
// A key is declared once, in [Config.keys], bound to its field, with its
// default and a phrase for people. Flags, HELIOS_* environment variables, the
// file in the syntax of postgresql.conf, what `helios config` prints and the table
// in docs/companion.md all come from that line.
//
// # Invariants
//
//   - A flag wins over the environment, the environment over the file, and the
//     file over the default; [Effective] says of every key which of them it was.
//   - What [Loader.Load] returns without an error has passed [Config.Check].
//   - No secret is a value here: secrets are in files that keys name.
//
// Keys of [ScopeCluster] are what a new cluster begins with. Afterwards they live
// in its log, and `helios settings` changes them.
package config
