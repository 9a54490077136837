package apns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"example.com/apns/internal/plain"
	"example.com/apns/internal/tlsrecord"
)

// A link is a TLS connection to a server: what both protocols write to and read from.
// Any number of goroutines may call its methods, but only one at a time may write.
type link struct {
	tls     plain.Session
	raw     net.Conn        // under tls; its Close does not wait for the peer
	records *tlsrecord.Conn // between tls and raw; nil in a simulation without TLS
	hasCert bool            // a client certificate is configured
	yield   func()          // lets other goroutines run

	isClosing atomic.Bool   // close or abort was called
	closed    chan struct{} // closed when the first of these calls is done
}

// dialLink connects to the server at addr and completes the TLS handshake.
func dialLink(ctx context.Context, addr string, config *Config) (*link, error) {
	tlsConfig, err := tlsConfigFor(addr, config.TLS)
	if err != nil {
		return nil, err
	}
	dialContext := config.DialContext
	if dialContext == nil {
		dialContext = new(net.Dialer).DialContext
	}
	raw, err := dialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("apns: connecting to %s: %w", addr, err)
	}
	l := &link{
		raw:     raw,
		hasCert: hasCertificate(tlsConfig),
		yield:   plain.Pause(raw),
		closed:  make(chan struct{}),
	}
	if session, ok := raw.(*plain.Conn); ok {
		l.tls = session
	} else {
		l.records = &tlsrecord.Conn{Conn: raw}
		l.tls = tls.Client(l.records, tlsConfig)
	}
	if err := l.tls.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("apns: TLS handshake with %s: %w", addr, l.explain(err))
	}
	return l, nil
}

// tlsConfigFor returns a copy of config, which may be nil, for a connection to addr.
func tlsConfigFor(addr string, config *tls.Config) (*tls.Config, error) {
	host, err := checkAddr(addr)
	if err != nil {
		return nil, err
	}
	if config == nil {
		config = new(tls.Config)
	}
	config = config.Clone()
	if config.ServerName == "" {
		config.ServerName = host
	}
	if config.ServerName == "" && !config.InsecureSkipVerify {
		return nil, &permanentError{fmt.Errorf("apns: address %q, expected host:port, or the server's name in Config.TLS", addr)}
	}
	if config.NextProtos == nil {
		config.NextProtos = []string{"h2"}
	}
	return config, nil
}

// checkAddr returns the host of an address.
func checkAddr(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil {
		switch n, portErr := net.LookupPort("tcp", port); {
		case strings.ContainsFunc(addr, func(r rune) bool { return r <= ' ' || strings.ContainsRune(`/\@?#"`, r) }):
			err = errors.New("it contains a character that neither a host nor a port can have")
		case portErr != nil:
			err = portErr
		case n == 0:
			err = errors.New("it has no port")
		}
	}
	if err != nil {
		return "", &permanentError{fmt.Errorf("apns: address %q, expected host:port: %w", addr, err)}
	}
	return host, nil
}

// state returns the state of the TLS connection.
func (l *link) state() tls.ConnectionState { return l.tls.ConnectionState() }

// firstStream returns the number of the first HTTP/2 stream, if a simulation gives one,
// and otherwise 0.
func (l *link) firstStream() uint32 {
	if c, ok := l.raw.(*plain.Conn); ok {
		return c.FirstStream
	}
	return 0
}

// Read reads from the TLS connection.
func (l *link) Read(p []byte) (int, error) { return l.tls.Read(p) }

// Write writes to the TLS connection.
func (l *link) Write(p []byte) (int, error) { return l.tls.Write(p) }

// writeTogether is Write with one write to the network for all TLS records, however many
// they are. After an error only the first n bytes can have reached the server. It uses
// the memory of scratch, and returns what the next call may use.
func (l *link) writeTogether(b, scratch []byte) (n int, _ []byte, err error) {
	if l.records == nil || len(b) <= tlsrecord.MaxPayload {
		n, err = l.tls.Write(b)
		return n, scratch, err
	}
	return l.records.WriteTogether(l.tls, b, scratch)
}

// setReadDeadline sets the time at which reading fails. The zero time means never.
//
// If the connection has no deadlines, as a tunnel may not, it is closed at once: this is
// the other way to interrupt what it does.
func (l *link) setReadDeadline(t time.Time) {
	if err := l.tls.SetReadDeadline(t); err != nil && !t.IsZero() {
		l.raw.Close()
	}
}

// setWriteDeadline is for writing what setReadDeadline is for reading.
func (l *link) setWriteDeadline(t time.Time) {
	if err := l.tls.SetWriteDeadline(t); err != nil && !t.IsZero() {
		l.raw.Close()
	}
}

// interruptWrite makes a write that is waiting fail, and all later ones.
func (l *link) interruptWrite() { l.setWriteDeadline(time.Unix(1, 0)) }

// lastWords is how long to wait for something that is on its way, if it comes at all: for
// the error packet after a write has failed, or for a peer to take the close_notify.
const lastWords = time.Second

// close sends a close_notify, unless a write is waiting, and closes the connection. It
// returns when that is done: after lastWords, if the peer does not read.
func (l *link) close() { l.closeOnce(true) }

// abort closes the connection without a close_notify.
func (l *link) abort() { l.closeOnce(false) }

// closeOnce closes the connection, if it is called for the first time. Other calls wait
// until the first one is done.
func (l *link) closeOnce(notify bool) {
	if !l.isClosing.CompareAndSwap(false, true) {
		<-l.closed
		return
	}
	defer close(l.closed)
	if notify {
		// By itself crypto/tls waits 5 s for a peer that does not read.
		defer time.AfterFunc(lastWords, func() { l.raw.Close() }).Stop()
		l.tls.Close()
	}
	l.raw.Close()
}

// explain says what an error of the TLS connection means. An alert is all that a server
// says about a certificate that it wants or refuses.
func (l *link) explain(err error) error {
	if notTLS, ok := errors.AsType[tls.RecordHeaderError](err); ok && notTLS.Conn != nil {
		return &permanentError{fmt.Errorf("the peer does not speak TLS, its first bytes are %q: %w", notTLS.RecordHeader[:], err)}
	}
	alert, ok := errors.AsType[*net.OpError](err)
	if !ok || alert.Op != "remote error" {
		return err
	}
	var what string
	switch text := alert.Err.Error(); {
	case strings.Contains(text, "no application protocol"):
		return &permanentError{fmt.Errorf("the server wants another protocol: %w", err)}
	case strings.Contains(text, "handshake failure") && !l.hasCert:
		return &permanentError{fmt.Errorf("the server broke off the handshake, perhaps for want of a client certificate, and Config.TLS has none: %w", err)}
	case !strings.Contains(text, "certificate") && !strings.Contains(text, "access denied"):
		return err
	case !l.hasCert:
		what = "the server wants a client certificate, and Config.TLS has none"
	case isCertificateRequired(err):
		what = "the server wants a client certificate, and none in Config.TLS is of an authority that it accepts"
	default:
		what = "the server refused the client certificate"
	}
	return &permanentError{&refusedError{fmt.Errorf("%s: %w", what, err)}}
}

// isCertificateRequired reports whether the error is the alert certificate_required. It is
// the only one about a certificate that certainly belongs to the handshake; a server can
// send the others at any time.
func isCertificateRequired(err error) bool {
	return strings.Contains(err.Error(), "certificate required")
}
