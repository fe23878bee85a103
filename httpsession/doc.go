// Package httpsession lets the users of an HTTP service read their own writes,
// and never something older than they have read, whichever process of the service
// answers them: what a session has seen of the database travels in a cookie, or in
// a header between services.
//
//	http.ListenAndServe(addr, httpsession.Handler(mux, httpsession.Options{}))
//
// Handlers use the request's context as they do anyway; statements that are
// given it belong to the user's session.
//
// # Limits
//
//   - What is written or read after the first byte of a response was sent cannot be put
//     into its headers any more. It is covered again from the user's next request
//     on that does, or by the session of the whole *sql.DB in this process.
//   - A response has a new cookie whenever the session has seen something new, which
//     a read does as well: a cache in between should not keep it for others.
//   - A token says nothing secret and gives no right. A client that invents one
//     only makes its own reads go to the primary, or wait for a timeline that does
//     not exist until failover_wait ends.
package httpsession
