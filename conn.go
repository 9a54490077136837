package apns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
)

// A Config says how to reach a server. The zero value, like nil, consists entirely of
// defaults. Dial does not modify a Config, which may serve any number of calls.
type Config struct {
	// TLS configures the connection. Nil means the zero tls.Config: the roots of the
	// system, and no client certificate, which most servers refuse if there is no Key
	// either.
	//
	// The provider certificate, from LoadCertificate for example, goes into Certificates.
	// If ServerName is empty, it is the host of the address that is dialed. If NextProtos
	// is nil, Dial offers HTTP/2, and the server decides. If NextProtos is empty but not
	// nil, Dial offers nothing, and the protocol is the binary one.
	TLS *tls.Config

	// Key signs the provider tokens, which over HTTP/2 take the place of a certificate.
	// Nil means that there are none. It is an error if there is a Key and TLS has a client
	// certificate as well, in Certificates or GetClientCertificate. With a Key, a
	// connection sends one message at a time until the first one is accepted: this is as
	// much as Apple allows.
	Key *AuthKey

	// BundleID is the bundle ID of the app. A message without a Topic gets its topic from
	// it: what PushType.Topic returns, which is the bundle ID with the suffix of the push
	// type. Empty means that these messages are sent without a topic.
	//
	// It is an error if it ends in the suffix of a push type, such as ".voip", since the
	// topic would end in two. If the bundle ID of an app really ends so, leave BundleID
	// empty and give each Message its Topic.
	BundleID string

	// DialContext opens the connection under TLS: to the server itself, or through a
	// proxy (see ProxyDialContext). Nil means the DialContext of the zero net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger receives what an operator may want to know: each connection and the protocol
	// that it negotiated, why a server ends a connection, new provider tokens. It never
	// receives a secret, a device token or a payload. Its handler must not call Shutdown or
	// Close. Nil means that nothing is logged.
	Logger *slog.Logger
}

// check returns an error if the fields contradict each other, or if BundleID is a topic.
func (c *Config) check() error {
	if c.Key != nil && hasCertificate(c.TLS) {
		return &permanentError{errors.New("apns: Config has both a Key and a certificate in TLS, expected one of them")}
	}
	for _, t := range suffixedTypes {
		if suffix := t.Topic(""); strings.HasSuffix(c.BundleID, suffix) {
			return &permanentError{fmt.Errorf("apns: Config.BundleID ends in %s, expected the bundle ID alone: the suffix comes from the push type", suffix)}
		}
	}
	return nil
}

// hasCertificate reports whether a client certificate is configured. The config may be nil.
func hasCertificate(config *tls.Config) bool {
	return config != nil && (len(config.Certificates) > 0 || config.GetClientCertificate != nil)
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// A Conn is a single connection to a server, without reconnecting or retries. It sends
// messages or, with the binary feedback service, reads the list of dead devices. When
// CheckForError says that it takes no more messages, dial another one, and end this one
// with Shutdown, so that messages in flight get their answers.
//
// Over HTTP/2 each message has its own answer, and WritePushMsg waits for it. To have
// many messages in flight, call WritePushMsg from many goroutines: up to a few more
// than the server allows streams.
//
// Any number of goroutines may call its methods. A Conn must be ended by Close or
// Shutdown, also after an error.
type Conn struct {
	link *link

	// The protocol's half of the connection. Exactly one is not nil.
	http2  *http2Session
	binary *binaryConn
}

// Dial connects to the server at addr, a host and a port. It returns when the connection
// is ready, or when ctx ends. A nil config means the zero Config.
//
// Dial offers HTTP/2. If the server takes it, the protocol is the HTTP/2 provider API. If
// the server negotiates nothing, it is a gateway or a feedback service of the binary
// protocol. This is an error if the Config has a Key, because the binary protocol has no
// provider tokens.
//
// If a client certificate is missing or refused, then over HTTP/2 Dial returns the error,
// because it waits until the server has sent something. On the binary protocol, Dial
// returns the error with TLS 1.2 only. With TLS 1.3 the server checks the certificate
// after the client has completed the handshake. Then Dial succeeds, the first few
// messages may be written too, and CheckForError, Shutdown or ReadFeedbackMsg returns the
// error.
func Dial(ctx context.Context, addr string, config *Config) (*Conn, error) {
	return dial(ctx, addr, config, nil)
}

// dial is Dial for a Client too. If the protocol is HTTP/2, the connection sends the
// messages of the dispatcher d. If d is nil, it sends those of WritePushMsg.
func dial(ctx context.Context, addr string, config *Config, d *dispatcher) (*Conn, error) {
	if config == nil {
		config = new(Config)
	}
	if err := config.check(); err != nil {
		return nil, err
	}
	l, err := dialLink(ctx, addr, config)
	if err != nil {
		return nil, err
	}
	c := &Conn{link: l}
	if err := c.start(ctx, addr, config, d); err != nil {
		l.close()
		return nil, err
	}
	return c, nil
}

// start begins to speak the protocol that the handshake has negotiated.
func (c *Conn) start(ctx context.Context, addr string, config *Config, d *dispatcher) error {
	protocol := c.link.state().NegotiatedProtocol
	config.logger().Info("apns: connected", "addr", addr, "protocol", protocol)
	switch {
	case protocol == "h2":
		var tokens *tokenSource
		if config.Key != nil {
			tokens = &tokenSource{key: config.Key}
		}
		p := newProvider(addr, config.BundleID, tokens)
		p.anonymous = tokens == nil && !hasCertificate(config.TLS)
		if err := c.startHTTP2(ctx, d, p, config.logger().With("addr", addr)); err != nil {
			return fmt.Errorf("apns: HTTP/2 with %s: %w", addr, err)
		}
	case protocol != "":
		return &permanentError{fmt.Errorf("apns: %s negotiated the protocol %q, expected h2, or none for a gateway of the binary protocol", addr, protocol)}
	case config.Key != nil:
		return &permanentError{fmt.Errorf("apns: %s did not negotiate HTTP/2 (ALPN h2), expected that for the provider tokens of Config.Key: it is a gateway of the binary protocol, which takes certificates alone, or something in between has stripped it", addr)}
	default:
		c.binary = newBinaryConn(c.link, config.logger())
	}
	return nil
}

// startHTTP2 begins a session. If d is nil, the session gets a dispatcher of its own,
// which takes any number of messages and tries each of them once.
func (c *Conn) startHTTP2(ctx context.Context, d *dispatcher, p *provider, log *slog.Logger) error {
	ownsDispatcher := d == nil
	if ownsDispatcher {
		d = newDispatcher(settings{maxAttempts: 1, maxInFlight: math.MaxInt}, log)
	}
	s, err := newHTTP2Session(ctx, d, c.link, p, c.link.firstStream(), log)
	if err != nil {
		return err
	}
	c.http2 = s
	if ownsDispatcher {
		d.mu.Lock()
		d.provider.Store(p)
		d.addSessionLocked(&s.session)
		d.unlock()
	}
	return nil
}

// ConnectionState returns the state of the TLS connection, with the protocol that it
// negotiated and the server's certificates.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.link.state() }

// WritePushMsg sends the message.
//
// A message that breaks a rule is not sent. As with [BuildMsg], the error matches the
// Status or Reason with which the server would have rejected the message, but it is not a
// *[PushError]. The connection is not affected.
//
// # HTTP/2
//
// WritePushMsg waits for the answer. If all streams that the server allows are in use, it
// first waits for one of them. The error is one of these.
//
//   - Nil: the server accepted the message.
//   - A *PushError: the server rejected this message.
//   - One that matches [ErrNotSent] or [ErrInDoubt]. If ctx ended, the error matches
//     ctx.Err() as well. If the answer is about the sender or the connection, and not
//     about the message, the error matches ErrNotSent and the [Reason]. If other messages
//     would get the same answer, it also matches [ErrRefused].
//
// A message is not sent if the server says that it has not processed it. A proxy can be
// wrong there: HAProxy has said so of messages that the server behind it had taken.
//
// A proxy may also answer in the place of APNs, without a reason. Such an answer leaves
// the message in doubt. The exception is an HTTP status of 4xx other than 408: this is a
// rejection, a *PushError without a Reason.
//
// Give each push a deadline, because a server may never answer it. If nothing is heard
// for 10 seconds while a push waits, the server is sent a PING. If it does not answer
// that within another 10 seconds, the connection ends. After a minute of silence, the
// next message is sent only when a PING has been answered, so that it is not lost on a
// dead connection.
//
// # Binary protocol
//
// WritePushMsg returns when the message is written, and nil means no more than that: a
// gateway says nothing about a message that it accepts, and rejects a message later. See
// [Conn.CheckForError] and [Conn.Shutdown].
//
// Any error, except for a message that breaks a rule, matches [ErrNotSent]. Either the
// connection has ended, and CheckForError says why. Or ctx has ended, and the error
// matches ctx.Err() too. If ctx ends in the middle of the message, the connection ends as
// well, because nothing can follow half a message. A gateway that has read only the
// beginning of a message may reject it; then CheckForError names it.
//
// WritePushMsg allocates no memory if ctx cannot end, or if the last call had the same
// ctx.
func (c *Conn) WritePushMsg(ctx context.Context, m *Message) error {
	if c.http2 != nil {
		_, err := c.http2.d.push(ctx, m)
		return err
	}
	return c.binary.writeMessage(ctx, m)
}

// CheckForError returns what ended the connection, or nil while it has not ended. Once
// there is an error, it stays the same.
//
// CheckForError does not wait. On the binary protocol, nil does not mean that messages
// were accepted, because a gateway takes its time to reject one. More messages may be
// written in the meantime. A gateway may also confirm messages, with an error packet of
// status 0: it has accepted all messages up to the one with the ID. That does not end the
// connection.
//
// On the binary protocol the error is one of these.
//
//   - A *[PushError]: the gateway has rejected the message with the ID, or has shut down
//     after it accepted that message (status 10). It has accepted all messages before
//     that one, and has discarded all messages after it. A shutdown with ID 0 means that
//     the gateway has accepted nothing.
//   - An error that matches [ErrInDoubt]: the connection ended, and the gateway had sent
//     no rejection. It is not known which of the messages it has accepted.
//   - An error that matches [ErrNotSent]: the connection ended, and the gateway cannot
//     have accepted anything. Either nothing was written, or the gateway required a
//     certificate and got none.
//   - An error that matches [net.ErrClosed]: Close or Shutdown was called. It matches
//     ErrInDoubt as well, unless Shutdown has confirmed the messages or nothing was
//     written.
//
// Over HTTP/2 each message has its own answer, and CheckForError is about the connection
// alone. An error says that no more messages can be sent. It matches the [Reason] that
// the server gave, if it gave one.
func (c *Conn) CheckForError() error {
	if c.http2 != nil {
		return c.http2.CheckForError()
	}
	return c.binary.checkForError()
}

// Shutdown waits until it is known what became of the messages, and closes the
// connection.
//
// On the binary protocol it writes a barrier: a message that the gateway must reject,
// because it has neither a token nor a payload. The rejection confirms that the gateway
// has accepted every message before the barrier. A gateway may name the barrier by its
// ID, with any status, even status 0. Or it may answer with ID 0 and the status for a
// missing token (2) or a missing payload (4); this confirms the messages unless one of
// them had the ID 0.
//
// Nil means that the gateway accepted every message that was written. Any other error is
// what [Conn.CheckForError] would return: a *[PushError] about another message, or an
// error that matches [ErrInDoubt], because the gateway gave no answer. If ctx ends while
// Shutdown waits for the answer, the error matches ctx.Err() too. If several calls of
// Shutdown wait, the first ctx that ends ends all of them.
//
// Over HTTP/2 Shutdown waits for the answers to the messages in flight, which
// WritePushMsg returns, and then closes the connection. It does not send messages that
// wait for a stream, nor messages that come in the meantime. The error is nil, or matches
// ctx.Err() if ctx ends first.
func (c *Conn) Shutdown(ctx context.Context) error {
	if c.http2 != nil {
		return c.http2.Shutdown(ctx)
	}
	return c.binary.shutdown(ctx)
}

// Close ends the connection, whatever other calls are waiting for. It returns at once, or
// within a second if the server does not read, and then nothing is left running. Messages
// whose outcome was not known remain in doubt: see [Conn.Shutdown]. The error is always
// nil.
func (c *Conn) Close() error {
	if c.http2 != nil {
		c.http2.close()
	} else {
		c.binary.close()
	}
	return nil
}
