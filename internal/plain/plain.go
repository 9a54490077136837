// Package plain leaves out TLS between package apns and a server of package
// apnstest that is in memory. A simulation that opens connections by the hundred
// thousand spends its time on what it is about, then, and not on handshakes.
package plain

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"runtime"
)

// A Session is what a *tls.Conn is to both packages.
type Session interface {
	net.Conn
	CloseWrite() error
	HandshakeContext(ctx context.Context) error
	ConnectionState() tls.ConnectionState
}

// A Conn is a Session without TLS. As the result of a DialContext it has apns.Dial
// leave TLS out. The other end has to do so too: see Context.
type Conn struct {
	net.Conn
	Protocol string // that both ends pretend to have negotiated

	// FirstStream is the number of the first HTTP/2 stream, as if all below it had
	// been used.
	FirstStream uint32
}

// CloseWrite does nothing: there is no close_notify.
func (c *Conn) CloseWrite() error { return nil }

// HandshakeContext does nothing.
func (c *Conn) HandshakeContext(context.Context) error { return nil }

// ConnectionState pretends that the peer has a certificate.
func (c *Conn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{
		HandshakeComplete:  true,
		NegotiatedProtocol: c.Protocol,
		PeerCertificates:   []*x509.Certificate{{}},
	}
}

type key struct{}

// Context returns a context with which a server in memory is dialed to leave out
// TLS.
func Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, true)
}

// In reports whether the context is one of Context.
func In(ctx context.Context) bool { return ctx.Value(key{}) != nil }

// A Pauser is a connection in a simulation. Before a goroutine of package apns writes to
// it, it calls Pause, which returns at an instant at which nothing else happens. What the
// goroutine writes then does not depend on the scheduler.
type Pauser interface{ Pause() }

// Pause returns the Pause method of a Pauser. For any other connection it returns
// runtime.Gosched.
func Pause(c net.Conn) func() {
	if session, ok := c.(*Conn); ok {
		c = session.Conn
	}
	if p, ok := c.(Pauser); ok {
		return p.Pause
	}
	return runtime.Gosched
}
