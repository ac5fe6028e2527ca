// Package proxy runs the configurations in deploy with the real nginx and
// HAProxy of the system, in front of the real server.
package proxy
