package apns

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/apns/internal/iomutex"
	"example.com/apns/internal/plain"
	"example.com/apns/internal/tlsrecord"
)

// A Config says how to reach a server. Its zero value, like nil, is all
// defaults. Dial does not modify it, and it may serve any number of calls.
type Config struct {
	// TLS configures the connection. Nil means the zero tls.Config: the
	// system's roots, and no client certificate, which most servers refuse.
	//
	// The provider certificate goes into its Certificates. Where ServerName is
	// empty, the host of the address that is dialed stands in for it. Where
	// NextProtos is nil, HTTP/2 is offered and the server decides; where it is
	// empty and not nil, nothing is, which leaves the binary wire.
	TLS *tls.Config

	// Key signs the provider tokens that take a certificate's place over
	// HTTP/2. It is not used where TLS has a certificate. With a key, a
	// connection sends one message at a time until the first one was accepted:
	// that is as much as Apple allows.
	Key *AuthKey

	// Topic is that of messages which have none.
	Topic string

	// DialContext opens the connection under TLS: to the server itself, or
	// through a proxy (see ProxyDialContext). Nil means that of the zero
	// net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// Logger is told what an operator may want to know: connections, what they
	// negotiated, why a server ends one, new provider tokens. It is not told a
	// secret, a device token or a payload. Nil means silence.
	Logger *slog.Logger
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// A Conn is one connection to a server, for sending messages or, with the
// binary feedback service, for reading its list. It never dials again and sends
// nothing twice. Where CheckForError says that it takes no more messages, dial
// another, and end this one with Shutdown, so that those on their way get their
// answers.
//
// Over HTTP/2 each message has its own answer, which WritePushMsg waits for: to
// have many on their way, call it from many goroutines, up to a few more than
// the server allows streams.
//
// All its methods may be called by any number of goroutines. A Conn must be
// ended by Close or Shutdown, also after an error.
type Conn struct {
	http2 *http2Session // nil on the binary protocol, which all other fields serve

	raw      net.Conn // under records; closing it does not wait for the peer
	records  *tlsrecord.Conn
	tls      plain.Session
	log      *slog.Logger
	hasCert  bool          // a client certificate was configured
	feedback *bufio.Reader // what was read of the feedback list; nil before the first read

	writing *iomutex.Mutex // guards buf
	buf     []byte         // the message being written
	reading *iomutex.Mutex // guards feedback

	writesRuns atomic.Bool // of a Client, which has IDs of its own

	onEnd      func()          // nil, or called when ending is set
	onAccepted func(id uint32) // nil, or called with each status 0

	goroutines sync.WaitGroup // that Close waits for
	done       chan struct{}  // closed when ending is set
	hungUp     chan struct{}  // closed when disconnect is through

	mu       sync.Mutex // protects following
	usage    usage
	hangsUp  bool    // disconnect was called
	ending   *ending // nil while the connection lives
	inFlight bool    // a message is being written
	written  uint64  // messages
	lastID   uint32  // of the messages written, as are the next two
	minID    uint32
	maxID    uint32
	barrier  bool   // Shutdown has begun to write its barrier
	proofID  uint32 // the ID of the barrier, not that of a message; or else 0
}

// Dial connects to the server at addr, a host and a port, and returns when that is
// done or ctx ends. A nil config means the zero Config.
//
// It offers the server HTTP/2. One that takes it is spoken to over the HTTP/2
// provider API; one that negotiates nothing is a binary gateway or feedback
// service, unless the Config has a Key and no certificate, which only HTTP/2 can
// make use of.
//
// On the binary wire a client certificate that is missing or refused shows here
// with TLS 1.2. With TLS 1.3 the server looks at it after the client is through:
// Dial succeeds, as may the first few messages, and it is CheckForError, Shutdown
// or ReadFeedbackMsg that says so. Over HTTP/2 Dial waits for the server's first
// words, and so it always shows here.
func Dial(ctx context.Context, addr string, config *Config) (*Conn, error) {
	return dial(ctx, addr, config, nil)
}

// dial is Dial. Over HTTP/2 the connection sends the messages of the dispatcher, or of
// its own if that is nil.
func dial(ctx context.Context, addr string, config *Config, d *dispatcher) (*Conn, error) {
	if config == nil {
		config = new(Config)
	}
	tlsConfig := new(tls.Config)
	if config.TLS != nil {
		tlsConfig = config.TLS.Clone()
	}
	host, err := checkAddr(addr)
	if err != nil {
		return nil, err
	}
	if tlsConfig.ServerName == "" {
		tlsConfig.ServerName = host
	}
	if tlsConfig.ServerName == "" && !tlsConfig.InsecureSkipVerify {
		return nil, &setupError{fmt.Errorf("apns: address %q, expected host:port, or the server's name in Config.TLS", addr)}
	}
	dialContext := config.DialContext
	if dialContext == nil {
		dialContext = new(net.Dialer).DialContext
	}
	if tlsConfig.NextProtos == nil {
		tlsConfig.NextProtos = []string{"h2"}
	}
	raw, err := dialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("apns: connecting to %s: %w", addr, err)
	}
	c := &Conn{
		raw:     raw,
		log:     config.logger(),
		hasCert: len(tlsConfig.Certificates) > 0 || tlsConfig.GetClientCertificate != nil,
		done:    make(chan struct{}),
		hungUp:  make(chan struct{}),
	}
	var firstStream uint32
	if session, ok := raw.(*plain.Conn); ok {
		c.tls, firstStream = session, session.FirstStream
	} else {
		c.records = &tlsrecord.Conn{Conn: raw}
		c.tls = tls.Client(c.records, tlsConfig)
	}
	c.writing = iomutex.New(c.interrupter(c.tls.SetWriteDeadline))
	c.reading = iomutex.New(c.interrupter(c.tls.SetReadDeadline))
	if err := c.tls.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("apns: TLS handshake with %s: %w", addr, c.explain(err))
	}
	if err := c.negotiated(ctx, addr, config, d, firstStream); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// ConnectionState returns what the TLS handshake settled.
func (c *Conn) ConnectionState() tls.ConnectionState {
	return c.tls.ConnectionState()
}

// WritePushMsg sends the message.
//
// A message that breaks a rule is not sent. The error, like that of [BuildMsg],
// matches the Status or Reason with which the server would have rejected it, but
// is not a *[PushError], and the connection is as good as before.
//
// Over HTTP/2 it waits for a stream, if the server allows no more at the time, and
// then for the answer. Nil means that the server accepted the message, a *PushError
// that it rejected this one. Any other error matches [ErrNotSent] or [ErrInDoubt]. If
// ctx ended, the error matches ctx.Err() as well. If the answer is about the sender or
// the connection, and not about the message, the error matches ErrNotSent and the
// [Reason], and [ErrRefused] if other messages would get the same answer.
//
// A proxy in between may answer in APNs' place, without a reason. Such an answer leaves
// the message in doubt, unless its HTTP status is a 4xx other than 408: that is a
// rejection, a *PushError without a Reason. A message that the server says it has not
// processed is not sent. A proxy can be wrong there: HAProxy has said so of messages
// that the server behind it had taken.
//
// Give each push a deadline: a server may leave one unanswered. If nothing is heard for
// 10 seconds while a push waits, the server is sent a PING; without an answer within
// another 10 seconds the connection ends. After a minute of silence the next message is
// sent only once a PING was answered, so that it is not lost on a dead connection.
//
// On the binary wire it returns when the message is written, and nil means just
// that: a gateway is silent about a message that it accepts, and says later
// that it rejected one. See [Conn.CheckForError] and [Conn.Shutdown]. Any error
// but that of a broken rule matches [ErrNotSent]: because the connection has
// ended, which CheckForError explains, or because ctx has, in which case the error
// matches ctx.Err() too. If ctx ends in the middle of the message, that ends the
// connection: nothing can follow half a message. A gateway may reject a message of
// which it has seen the beginning alone; then it is CheckForError that names it.
//
// On the binary protocol it allocates nothing for a context that cannot end, and for one that was also
// the last call's.
func (c *Conn) WritePushMsg(ctx context.Context, m *Message) error {
	if c.http2 != nil {
		_, err := c.http2.d.push(ctx, m)
		return err
	}
	if err := c.use(sendsMessages); err != nil {
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if err := c.writing.Lock(ctx, c.done); err != nil {
		return c.notSent(err)
	}
	defer c.writing.Unlock()
	b, err := AppendMsg(c.buf[:0], m)
	if err != nil {
		return err
	}
	c.buf = b
	if !c.begin() {
		return c.notSent(nil)
	}
	if err := c.write(ctx, b); err != nil {
		return c.notSent(err)
	}
	c.wrote(m.ID, m.ID)
	return nil
}

// CheckForError says what ended the connection, and nil as long as nothing has.
// It does not wait: the gateway takes its time to reject a message, so that nil
// proves nothing, and more messages can be written meanwhile. Once it is not nil
// it stays as it is. The error is one of these.
//
//   - A *[PushError]: the gateway said which message it rejected, or that it
//     shuts down. It took all messages before that one and none after it.
//   - One that matches [ErrInDoubt]: the connection ended and the gateway had
//     said nothing. What it took of the messages written is not known.
//   - One that matches [ErrNotSent]: the connection ended and the gateway cannot
//     have taken anything, since nothing was written or it wanted a certificate
//     and got none.
//   - One that matches [net.ErrClosed]: Close or Shutdown was called. It matches
//     ErrInDoubt as well, unless Shutdown proved what was accepted or nothing
//     was written.
//
// Over HTTP/2 it is about the connection alone, since each message has its own
// answer: an error says that no more messages can be sent, and matches the
// [Reason] that the server gave, if it did.
func (c *Conn) CheckForError() error {
	if c.http2 != nil {
		return c.http2.CheckForError()
	}
	if err := c.use(sendsMessages); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	return c.known()
}

// Shutdown proves what became of the messages and closes the connection. It
// writes a message that the gateway must reject, since it has no token; the
// rejection says that every message before it was accepted.
//
// Nil means that every message written was accepted. Otherwise the error is
// what [Conn.CheckForError] would return: a *[PushError] about another message,
// or one that matches [ErrInDoubt], where the gateway gave no answer. Shutdown
// waits for it as long as ctx lets it; if that ends, the error matches ctx.Err()
// too. Of several calls at a time the first whose context ends decides for all.
//
// Over HTTP/2 it waits for the answers to the messages that are on their way,
// which WritePushMsg returns, and then closes the connection. Messages that wait for a
// stream, and messages that come meanwhile, are not sent. The error is that of ctx, if it ends first.
func (c *Conn) Shutdown(ctx context.Context) error {
	if c.http2 != nil {
		return c.http2.Shutdown(ctx)
	}
	if err := c.use(sendsMessages); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	gaveUp := c.ask(ctx)
	if gaveUp != nil {
		c.end(ending{cause: errors.New("Shutdown was given up")})
	}
	c.Close()
	err := c.ended()
	c.mu.Lock()
	e := *c.ending
	c.mu.Unlock()
	switch {
	case e.proved:
		return nil
	case e.said == nil && gaveUp != nil && errors.Is(gaveUp, ctx.Err()):
		return fmt.Errorf("%w: %w", err, ctx.Err())
	}
	return err
}

// Close ends the connection, whatever other calls are waiting for, and returns
// when nothing is left of it: at once, or within a second if the server does not
// read. Messages of which nothing was known remain in doubt: see
// [Conn.Shutdown]. The error is always nil.
func (c *Conn) Close() error {
	if c.http2 != nil {
		c.http2.close()
	}
	c.end(ending{cause: net.ErrClosed})
	c.disconnect()
	c.goroutines.Wait()
	c.writing.Close()
	c.reading.Close()
	return nil
}

// negotiated begins to speak the protocol that the handshake has negotiated.
func (c *Conn) negotiated(ctx context.Context, addr string, config *Config, d *dispatcher, firstStream uint32) error {
	protocol := c.tls.ConnectionState().NegotiatedProtocol
	c.log.Info("apns: connected", "addr", addr, "protocol", protocol)
	switch needsHTTP2 := config.Key != nil && !c.hasCert; {
	case protocol == "h2":
		var tokens *tokenSource
		if needsHTTP2 {
			tokens = &tokenSource{key: config.Key}
		}
		log, own := c.log.With("addr", addr), d == nil
		if own {
			d = newDispatcher(settings{maxAttempts: 1, maxInFlight: math.MaxInt}, log)
		}
		s, err := newHTTP2Session(ctx, d, c.link(), newProvider(addr, config.Topic, tokens), firstStream, log)
		if err != nil {
			return fmt.Errorf("apns: HTTP/2 with %s: %w", addr, err)
		}
		c.http2 = s
		if own {
			d.mu.Lock()
			d.provider.Store(s.provider)
			d.openLocked(&s.session)
			d.unlock()
		}
	case protocol != "":
		return &setupError{fmt.Errorf("apns: %s negotiated the protocol %q, expected h2, or none for a gateway of the binary protocol", addr, protocol)}
	case needsHTTP2:
		return &setupError{fmt.Errorf("apns: %s did not negotiate HTTP/2 (ALPN h2), expected that for the provider tokens of Config.Key: it is a gateway of the binary protocol, which takes certificates alone, or something in between has stripped it", addr)}
	}
	return nil
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
		return "", &setupError{fmt.Errorf("apns: address %q, expected host:port: %w", addr, err)}
	}
	return host, nil
}

// link returns what a session needs of the connection.
func (c *Conn) link() link {
	return link{
		Conn:             c.tls,
		setWriteDeadline: c.interrupter(c.tls.SetWriteDeadline),
		closeNow:         func() { c.end(ending{cause: net.ErrClosed}); c.disconnect() },
		explain:          c.explain,
		pause:            plain.Pause(c.raw),
	}
}

// lastWords is how long something is waited for that is already on its way, if
// it comes at all: the error packet after a write failed, room for the
// close_notify.
const lastWords = time.Second

// A usage is what a Conn is for. The first verb settles it.
type usage int

const (
	unused usage = iota
	sendsMessages
	readsFeedback
)

// use settles what the connection is for, and refuses the verbs of the other
// kind. From the first one that sends messages on, somebody listens: the error
// packet must be taken before a later write draws the reset that, on some
// systems, throws it away.
func (c *Conn) use(u usage) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.usage == u || c.ending != nil && c.usage == unused:
		return nil
	case c.usage == sendsMessages:
		return errors.New("this connection sends messages: dial the feedback service for another that reads from it")
	case c.usage == readsFeedback:
		return errors.New("this connection reads the feedback service: dial the gateway for another that sends messages")
	}
	c.usage = u
	if u == sendsMessages {
		c.goroutines.Go(c.listen)
	}
	return nil
}

// begin says that a message is about to be written. It is false if the
// connection has ended, or if Shutdown has had its turn.
func (c *Conn) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil || c.barrier {
		return false
	}
	c.inFlight = true
	return true
}

// wrote counts the messages that were written, whose IDs count from first to last.
func (c *Conn) wrote(first, last uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.written == 0 {
		c.minID, c.maxID = first, last
	}
	c.inFlight = false
	c.written += uint64(last-first) + 1
	c.lastID, c.minID, c.maxID = last, min(c.minID, first), max(c.maxID, last)
}

// failed says that it was not. What ended the connection can be told only now,
// since that depends on how many messages were.
func (c *Conn) failed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inFlight = false
}

// write writes b. A write that fails ends the connection. The caller has locked writing.
func (c *Conn) write(ctx context.Context, b []byte) error {
	if err := c.writing.Start(ctx); err != nil {
		c.failed()
		return err
	}
	_, err := c.tls.Write(b)
	c.writing.Stop()
	return c.wroteAll(ctx, err)
}

// wroteAll ends the connection if a write has failed.
func (c *Conn) wroteAll(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		// The ending is everybody's, the context is not.
		c.failed()
		c.end(ending{cause: errors.New("a message was cut off in the middle")})
		err = fmt.Errorf("cut off in the middle of the message: %w", ctx.Err())
	default:
		// That the peer is gone shows here first, but the listener may be about
		// to learn why.
		t := time.NewTimer(lastWords)
		select {
		case <-c.done:
		case <-t.C:
		}
		t.Stop()
		err = c.explain(err)
		c.failed()
		c.end(ending{cause: err})
	}
	c.disconnect()
	return err
}

// notSent returns the error of a message that was not written because of err.
// What ended the connection is in its text alone: it may be about another
// message, or another caller's context.
func (c *Conn) notSent(err error) error {
	ended := c.ended()
	switch {
	case ended == nil && err == nil:
		return fmt.Errorf("%w: the connection is being shut down: %w", ErrNotSent, net.ErrClosed)
	case ended == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrNotSent, err)
	case errors.Is(ended, net.ErrClosed):
		return fmt.Errorf("%w: %w", ErrNotSent, net.ErrClosed)
	}
	text := strings.TrimPrefix(ended.Error(), ErrNotSent.Error()+": ")
	return fmt.Errorf("%w: the connection has ended (%s)", ErrNotSent, strings.TrimPrefix(text, "apns: "))
}

// ask writes the barrier and waits for what the gateway says of it. It returns
// nil when the connection has ended.
func (c *Conn) ask(ctx context.Context) error {
	if err := c.writing.Lock(ctx, c.done); err != nil {
		return err
	}
	err := c.writeBarrier(ctx)
	c.writing.Unlock()
	if err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// writeBarrier writes a message without token and payload, unless that was done
// or there is nothing to prove.
func (c *Conn) writeBarrier(ctx context.Context) error {
	c.mu.Lock()
	asked := c.barrier || c.ending != nil
	nothing := c.written == 0
	c.barrier = true
	if !asked {
		switch {
		case c.maxID < math.MaxUint32:
			c.proofID = c.maxID + 1
		case c.minID > 1:
			c.proofID = c.minID - 1
		}
	}
	c.mu.Unlock()
	switch {
	case asked:
		return nil
	case nothing:
		c.end(ending{cause: net.ErrClosed, proved: true})
		return nil
	}
	id := c.proofID
	return c.write(ctx, []byte{
		cmdExtended,
		byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id),
		0, 0, 0, 0, // expiry
		0, 0, // token length
		0, 0, // payload length
	})
}

// What a Client needs of the binary wire: to write a run of messages, to have it
// proved, and to know how it ended, which is when done is closed.

// writeRun writes messages whose IDs count from first to last. On an error those
// within the first n bytes may have reached the server, and no others. The memory
// of scratch is used, and returned to be used again.
func (c *Conn) writeRun(b []byte, first, last uint32, scratch []byte) (n int, _ []byte, err error) {
	if err := c.writing.Lock(context.Background(), c.done); err != nil {
		return 0, scratch, err
	}
	defer c.writing.Unlock()
	c.writesRuns.Store(true)
	if !c.begin() {
		return 0, scratch, net.ErrClosed
	}
	if c.records == nil || len(b) <= tlsrecord.MaxPayload {
		n, err = c.tls.Write(b)
	} else {
		n, scratch, err = c.records.WriteTogether(c.tls, b, scratch)
	}
	if err = c.wroteAll(context.Background(), err); err == nil {
		c.wrote(first, last)
	}
	return n, scratch, err
}

// prove asks the server what it accepted, which ends the connection.
func (c *Conn) prove() {
	if c.writing.Lock(context.Background(), c.done) == nil {
		c.writeBarrier(context.Background())
		c.writing.Unlock()
	}
}

// final returns how the connection ended, once it has.
func (c *Conn) final() ending {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.ending
}

// listen reads what the gateway says, which is at most one error packet, and
// then to the end of the stream.
func (c *Conn) listen() {
	defer c.disconnect()
	var buf [64]byte // room for the first words of a peer that is something else
	for n := 0; ; {
		k, err := c.tls.Read(buf[n:])
		n = c.skipAccepted(buf[:n+k])
		said, parseErr := ParseError(buf[:n])
		switch {
		case parseErr == nil:
			c.end(c.answer(said))
			// To close before the gateway does could reset the connection under it.
			io.Copy(io.Discard, c.tls)
			return
		case n > 0 && errors.Is(parseErr, StatusProtocolError):
			c.end(ending{cause: fmt.Errorf("the peer is no gateway of the binary protocol: expected an error packet (command %d), got %q", cmdError, buf[:n])})
			return
		case err == io.EOF && n == 0:
			c.end(ending{cause: errors.New("the server closed the connection and said nothing")})
			return
		case err == io.EOF:
			c.end(ending{cause: fmt.Errorf("the server closed the connection: % x: %w", buf[:n], parseErr)})
			return
		case err != nil:
			// Of all alerts about a certificate this one alone belongs to the
			// handshake for sure.
			refused := strings.Contains(err.Error(), "certificate required")
			c.end(ending{cause: c.explain(err), refused: refused})
			return
		}
	}
}

// skipAccepted takes the packets at the beginning of b with which the gateway says that
// it has accepted a message (status 0), after which more may follow. It moves the rest
// of b to its beginning, and returns how much that is.
func (c *Conn) skipAccepted(b []byte) int {
	rest := b
	for {
		said, err := ParseError(rest)
		if err != nil || said.Status != StatusNoError {
			return copy(b, rest)
		}
		rest = rest[errorPacketSize:]
		if c.isBarrier(said) {
			c.end(ending{cause: net.ErrClosed, proved: true})
		} else if c.onAccepted != nil {
			c.onAccepted(said.ID)
		}
	}
}

// answer tells the rejection of the barrier from that of a message.
func (c *Conn) answer(said *PushError) ending {
	if c.isBarrier(said) {
		return ending{cause: net.ErrClosed, proved: true}
	}
	return ending{said: said}
}

// isBarrier reports whether the gateway answers the barrier. Then it names the barrier's
// ID; or 0, if it does not name what has no token or no payload. In that case the status
// tells, unless a message had that ID.
func (c *Conn) isBarrier(said *PushError) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	unnamed := said.ID == 0 && c.minID != 0 && (said.Status == StatusMissingToken || said.Status == StatusMissingPayload)
	return c.barrier && (said.ID == c.proofID && said.ID != 0 || unnamed)
}

// An ending is what ended a connection.
type ending struct {
	said    *PushError // the server's answer; or else
	cause   error      // why there is none
	refused bool       // the server took nothing at all
	proved  bool       // the server took everything
}

// end ends the connection, unless something else has: the first ending counts.
// A write that is waiting gives up.
func (c *Conn) end(e ending) {
	if !c.setEnding(e) || e.cause == net.ErrClosed {
		return
	}
	err := c.ended()
	if e.said != nil && c.writesRuns.Load() {
		// The ID is not one that anybody knows.
		err = fmt.Errorf("apns: the gateway said: %w", e.said.Status)
	}
	c.log.Warn("apns: connection ended", "error", err)
}

func (c *Conn) setEnding(e ending) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil {
		return false
	}
	c.ending = &e
	close(c.done)
	if c.onEnd != nil {
		c.onEnd()
	}
	if c.usage == sendsMessages && e.cause != net.ErrClosed {
		if c.raw.SetWriteDeadline(longAgo) != nil {
			c.raw.Close()
		}
	}
	return true
}

// interrupter returns setDeadline for a connection that may know no deadlines:
// to close it is the other way to end what it is doing.
func (c *Conn) interrupter(setDeadline func(time.Time) error) func(time.Time) {
	return func(t time.Time) {
		if err := setDeadline(t); err != nil && !t.IsZero() {
			c.raw.Close()
		}
	}
}

// isEnded reports whether the connection has ended.
func (c *Conn) isEnded() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// known returns what ended the connection, once it can be told for good, or nil.
func (c *Conn) known() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inFlight && c.ending != nil && c.ending.said == nil {
		return nil // whoever writes is about to find out
	}
	return c.endedLocked()
}

// ended returns what ended the connection, or nil.
func (c *Conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endedLocked()
}

func (c *Conn) endedLocked() error {
	e := c.ending
	switch {
	case e == nil:
		return nil
	case e.said != nil:
		return e.said
	case e.cause == net.ErrClosed && (e.proved || c.written == 0):
		return fmt.Errorf("apns: connection closed: %w", e.cause)
	case e.refused || c.written == 0:
		return fmt.Errorf("%w: the server took no message: %w", ErrNotSent, e.cause)
	default:
		return fmt.Errorf("%w: messages written: %d, the last with ID %d, and then: %w", ErrInDoubt, c.written, c.lastID, e.cause)
	}
}

// disconnect closes the connection that has ended; politely if it was this side
// that wanted it so.
func (c *Conn) disconnect() {
	c.mu.Lock()
	first := !c.hangsUp
	c.hangsUp = true
	ours := c.ending.cause == net.ErrClosed
	c.mu.Unlock()
	if !first {
		<-c.hungUp
		return
	}
	defer close(c.hungUp)
	if ours {
		// Without a limit the close_notify would wait 5 s for a peer that
		// does not read. It is left out if a message is being written.
		defer time.AfterFunc(lastWords, func() { c.raw.Close() }).Stop()
		c.tls.Close()
	}
	c.raw.Close()
}

// explain puts into words what the TLS stack says of the handshake.
func (c *Conn) explain(err error) error {
	if notTLS, ok := errors.AsType[tls.RecordHeaderError](err); ok && notTLS.Conn != nil {
		return &setupError{fmt.Errorf("the peer does not speak TLS, its first bytes are %q: %w", notTLS.RecordHeader[:], err)}
	}
	alert, ok := errors.AsType[*net.OpError](err)
	if !ok || alert.Op != "remote error" {
		return err
	}
	var what string
	switch text := alert.Err.Error(); {
	case strings.Contains(text, "no application protocol"):
		return &setupError{fmt.Errorf("the server wants another protocol: %w", err)}
	case strings.Contains(text, "handshake failure") && !c.hasCert:
		return &setupError{fmt.Errorf("the server broke off the handshake, perhaps for want of a client certificate, and Config.TLS has none: %w", err)}
	case !strings.Contains(text, "certificate") && !strings.Contains(text, "access denied"):
		return err
	case !c.hasCert:
		what = "the server wants a client certificate, and Config.TLS has none"
	case strings.Contains(text, "certificate required"):
		what = "the server wants a client certificate, and none in Config.TLS is of an authority that it accepts"
	default:
		what = "the server refused the client certificate"
	}
	return &setupError{&refusedError{fmt.Errorf("%s: %w", what, err)}}
}

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)
