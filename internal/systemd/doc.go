// Package systemd tells a service manager how a program is, by the protocol of
// sd_notify(3). Where none listens, because NOTIFY_SOCKET is not set, nothing happens.
package systemd
