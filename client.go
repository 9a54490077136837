package apns

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Client sends messages, many or few, and gives each a definite fate. It dials
// when there is something to send, dials again when a connection ends, and sends
// a message again where it is known that the server did not process it.
//
// Its zero value sends to Production with the zero Config. The fields are
// settings: they must not change after the first call, and neither must what
// Config points to. All methods may be called by any number of goroutines. A
// Client should be kept as long as there may be something to send: while it is
// idle it has no goroutine at work. It must be ended by Shutdown or Close.
//
// # What becomes of a message
//
// Each message ends exactly once, with one of the fates that the package's
// documentation names:
//
//   - accepted: the error is nil;
//   - rejected: a *[PushError], with the ID that the message has;
//   - [ErrNotSent]: the Client was closed, the message's context or time ended
//     before it was written, its Attempts ran out, or the server refuses this
//     sender ([ErrRefused]): its certificate, its key, its environment;
//   - [ErrInDoubt]: the message was written, and the connection, the message's
//     context or its time ended before the server had said anything, or the
//     answer has no reason from APNs: see [Conn.WritePushMsg]. So are
//     those that were written before a binary gateway refused the certificate,
//     which with TLS 1.3 it may do late: see [Dial].
//
// An error that comes of a context matches its Err() as well, one that comes of
// Timeout matches [context.DeadlineExceeded], and one that comes of Close
// [net.ErrClosed]. A message that breaks a rule ends with the error of the local
// check, which matches none of these: see [BuildMsg].
//
// # The HTTP/2 wire
//
// Each message has its own answer. There is one connection, and another one, up
// to MaxConns, only while all streams of the open connections are in use; one that
// was not used for ten minutes is closed.
//
// What the server says it has not processed is resent at once, and after a back-off
// from the second time on: on another connection after [ReasonShutdown],
// [ReasonIdleTimeout] and [ReasonUnrelatedKeyIDInToken], with a new token after
// [ReasonExpiredProviderToken]. After [ReasonTooManyRequests],
// [ReasonInternalServerError] and [ReasonServiceUnavailable] the message is resent
// after the server's Retry-After; without one, after 1, 2, 4 seconds and so on up to a
// minute, with up to 50 % jitter. [ReasonTooManyProviderTokenUpdates] has this back-off
// always. (After a 5xx Apple asks for 15 minutes, which is too late for most messages.)
// All other rejections go to the caller.
//
// # The binary wire
//
// A gateway says nothing about what it accepts. So the Client ends each
// connection with a barrier, a message that the gateway must reject, whose
// rejection proves that all before it were accepted. It is shared by all
// callers: one proof is for every message that was sent before it. Meanwhile the
// next connection is dialed and filled.
//
// Messages are sent in the order in which they were handed over. When the gateway
// rejects one, those before it are accepted, and those after it, which the
// gateway discards, go first on the next connection, in their order. (Those that
// were sent over the next connection while the rejection was on its way have
// gone before them.) The identifiers on the wire are the Client's own, counted
// from 1 on each connection; Message.ID is only for the caller.
//
// # Connections that fail
//
// The Client dials again after a tenth of a second, two tenths and so on up to a
// minute, less up to half of that at random, for as long as a message waits. A
// connection over which nothing was settled counts as a failure to connect.
//
// If the server refuses the sender, for its certificate, its key or its
// environment, or does not speak the protocol, or has a certificate that is not
// trusted, then to try again would not help: all messages that wait end at once
// with ErrNotSent and that error, as do those that come in the time
// before the next attempt would be due.
type Client struct {
	// Addr is the server's host and port. Empty means Production.
	Addr string

	// Config says how to reach it. Nil means the zero Config. TLS sessions are
	// taken up again, unless Config.TLS has a ClientSessionCache of its own, or
	// GetClientCertificate, which may give another certificate each time.
	Config *Config

	// Timeout is how long a message may take where the context that Push was
	// given has no deadline, and how long each message of PushAll may. Zero
	// means one minute. It is kept to within a quarter. On the binary wire it
	// is also how long a gateway may take to read, or to answer a barrier.
	Timeout time.Duration

	// Attempts is how often a message is tried at most. Zero means 10. On the
	// binary wire it does not count when a message is sent again because another
	// was rejected.
	Attempts int

	// AtLeastOnce has a message that is in doubt sent again, so that it may
	// arrive twice, until its Attempts run out. Where connections end without a
	// word, the Client asks for a proof after fewer and fewer messages, so that
	// it makes progress with a server that takes but a few on each.
	AtLeastOnce bool

	// Window is how many messages of a PushAll are outstanding at most: taken
	// from msgs, and not yet given back in a Result. Zero means 40960. On the
	// binary wire a connection is full, and its barrier is sent, after three
	// quarters of it, from all callers together: no more are in doubt when the
	// connection fails. After one that ended early the next ones take fewer.
	Window int

	// MaxConns is how many connections there may be over HTTP/2. Zero means 4.
	MaxConns int

	// ConfirmInterval is how much time there is between two barriers on the binary
	// wire, unless a connection is full, PushAll comes to its end or Shutdown is
	// called. So it is also how long a single Push takes, if others came before
	// it. Zero means one second.
	ConfirmInterval time.Duration

	// AssumeAcceptedAfter, if not zero, takes silence for acceptance on the binary wire: if a
	// gateway has not answered a barrier for so long, and not closed the
	// connection, what was sent counts as accepted. It is for gateways that
	// never answer one; there every message would be in doubt. What a gateway
	// says later than that is lost. It should be well below Timeout.
	AssumeAcceptedAfter time.Duration

	running sync.WaitGroup         // of all goroutines
	route   atomic.Pointer[sender] // nil until it is known which wire the server speaks

	closing  atomic.Bool   // Shutdown or Close was called
	handed   atomic.Uint64 // messages
	settled  atomic.Uint64 // of these
	accepted atomic.Uint64 // of these
	refusing atomic.Bool   // the server refuses the sender

	mu       sync.Mutex // protects following
	context  context.Context
	cancel   context.CancelFunc
	closed   bool            // Close was called
	config   *Config         // with which it dials
	first    *firstConn      // being made
	idle     []chan struct{} // closed when nothing is outstanding
	failures int             // connections in a row over which nothing was settled
	due      time.Time       // when the next one may be dialed
	failure  error           // of the last one
	refused  bool            // failure is not one that time heals
	stats    Stats           // but for what is counted above
	rejected map[string]uint64
}

// Push sends the message and waits for its fate. The error says which it is: see
// [Client]. The Receipt is what the server says of a message that it accepted
// over HTTP/2.
//
// If ctx has no deadline, the message has Timeout. On the binary wire Push waits
// for a proof, which it shares with all other calls: one after the other takes
// ConfirmInterval for each, and many at a time no longer than that for all.
func (c *Client) Push(ctx context.Context, m *Message) (Receipt, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout())
		defer cancel()
	}
	c.handed.Add(1)
	r, err := Receipt{}, errNoMessage
	if m != nil {
		var s sender
		if s, err = c.sender(ctx); err == nil {
			r, err = s.push(ctx, m)
		}
	}
	c.settle(1, err)
	return r, err
}

var errNoMessage error = &fieldError{StatusMissingToken, "the message is nil, expected one with a token"}

// A Result says what became of a message that was given to PushAll.
type Result struct {
	Message *Message // as it came, the same pointer
	Receipt Receipt  // if it was accepted over HTTP/2
	Err     error    // nil if it was accepted: see Client
}

// PushAll sends all messages of msgs, and yields each with its fate as soon as
// that is known, which is not the order in which they came. It takes no more from
// msgs than can soon be sent, and never more than a Window. A message, and its
// Payload, must not be modified before it came back; after that it may be used again.
//
// The function msgs runs in a goroutine of its own, at the same time as the body
// of the caller's loop. A panic in it is a panic of PushAll. While it blocks,
// results are yielded as they become known. When ctx ends, or the caller breaks
// off the loop, it is asked for no more messages; PushAll returns when it has
// returned, so that a function that may block should watch the same context.
//
// If ctx ends, all outstanding messages end with it, and the loop ends when they
// were yielded. Those still in msgs were not handed over, and have no result. If
// the caller breaks off the loop, the rest of the outstanding messages are given
// up without a result. In either case, on return nothing is left running that
// PushAll started; a connection is the Client's, and on the binary wire stays
// until its barrier is answered, for Timeout at the most.
//
// Each message may take Timeout; a deadline of ctx is for all together.
func (c *Client) PushAll(ctx context.Context, msgs iter.Seq[*Message]) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		newBatch(ctx, c).run(msgs, yield)
	}
}

// Stats are the figures of a Client since it was made.
type Stats struct {
	Accepted  uint64
	Rejected  map[string]uint64 // by the text of the Status or Reason; those that broke a rule as well
	NotSent   uint64            // matched ErrNotSent
	InDoubt   uint64            // matched ErrInDoubt
	InFlight  uint64            // handed over and without a fate so far
	Resent    uint64            // times that a message was sent once more
	Connected uint64            // connections opened
}

// Stats returns the figures. One that changes meanwhile may be a moment behind
// another.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Rejected = maps.Clone(c.rejected)
	s.Accepted = c.accepted.Load()
	settled := c.settled.Load()
	s.InFlight = c.handed.Load() - settled
	return s
}

// Shutdown waits until every message that was handed over has its fate, and then
// ends the connections. Messages that come meanwhile end with ErrNotSent. On the
// binary wire it has the proof asked for at once. If ctx ends first, that is the
// error, and what is outstanding goes on: call Close to end it.
func (c *Client) Shutdown(ctx context.Context) error {
	hurried := c.route.Load()
	if hurried != nil {
		(*hurried).hurry()
	}
	c.closing.Store(true)
	if s := c.route.Load(); hurried == nil && s != nil { // known just now
		(*s).hurry()
	}
	c.mu.Lock()
	idle := make(chan struct{})
	if settled := c.settled.Load(); settled == c.handed.Load() { // in this order
		close(idle)
	} else {
		c.idle = append(c.idle, idle)
	}
	c.mu.Unlock()
	select {
	case <-idle:
		return c.Close()
	case <-ctx.Done():
		return fmt.Errorf("apns: Shutdown was given up while %d messages were outstanding: %w", c.Stats().InFlight, ctx.Err())
	}
}

// Close ends all connections, whatever is outstanding, and returns when nothing
// is left running, which takes up to a second where a server does not read.
// Messages that were written end with ErrInDoubt, others with ErrNotSent. The
// error is always nil.
func (c *Client) Close() error {
	c.closing.Store(true)
	c.mu.Lock()
	c.closed = true
	if c.cancel != nil {
		c.cancel()
	}
	c.mu.Unlock()
	for range 2 { // what was connecting meanwhile may have made a sender
		if s := c.route.Load(); s != nil {
			(*s).close()
		}
		c.running.Wait()
	}
	return nil
}

// The defaults, and what has no setting.
const (
	defaultTimeout         = time.Minute
	defaultAttempts        = 10
	defaultWindow          = 40 << 10
	defaultMaxConns        = 4
	defaultConfirmInterval = time.Second

	dialTimeout     = 30 * time.Second
	minRedial       = 100 * time.Millisecond
	maxRedial       = time.Minute
	minRetry        = time.Second
	maxRetry        = time.Minute
	connIdleTimeout = 10 * time.Minute
)

func (c *Client) timeout() time.Duration { return positive(c.Timeout, defaultTimeout) }
func (c *Client) attempts() int          { return positive(c.Attempts, defaultAttempts) }
func (c *Client) window() int            { return positive(c.Window, defaultWindow) }
func (c *Client) maxConns() int          { return positive(c.MaxConns, defaultMaxConns) }
func (c *Client) confirmInterval() time.Duration {
	return positive(c.ConfirmInterval, defaultConfirmInterval)
}

func positive[T int | time.Duration](n, otherwise T) T {
	if n <= 0 {
		return otherwise
	}
	return n
}

// A sender sends messages over one of the wires.
type sender interface {
	// push sends a message and waits for its fate.
	push(ctx context.Context, m *Message) (Receipt, error)
	// feeds says that a batch has messages to come.
	feeds(b *batch)
	// submit counts a message of a batch as handed over, and sends it.
	submit(b *batch, m *Message)
	// accept sends messages of a batch that were counted.
	accept(b *batch, some ...handed)
	// fed says that a batch has no more messages to come.
	fed(b *batch)
	// giveUp ends what is outstanding of a settler, because of err.
	giveUp(of settler, err error)
	// add takes a connection into use. It is false if the sender is closed.
	add(conn *Conn) bool
	// hurry has the fate of what is outstanding be found out at once.
	hurry()
	// close ends everything.
	close()
}

// sender returns who sends messages, as soon as that is known.
func (c *Client) sender(ctx context.Context) (sender, error) {
	if c.closing.Load() {
		return nil, errClientClosed(ErrNotSent)
	}
	if s := c.route.Load(); s != nil {
		return *s, nil
	}
	return c.findOut(ctx)
}

func errClientClosed(fate error) error {
	return fmt.Errorf("%w: the client is closed: %w", fate, net.ErrClosed)
}

// settle counts messages that have the same fate.
func (c *Client) settle(n int, err error) {
	if err == nil {
		c.accepted.Add(uint64(n))
	} else {
		c.countFailed(n, err)
	}
	c.settled.Add(uint64(n))
	if !c.closing.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if settled := c.settled.Load(); settled == c.handed.Load() { // in this order
		for _, idle := range c.idle {
			close(idle)
		}
		c.idle = nil
	}
}

func (c *Client) countFailed(n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, ErrInDoubt):
		c.stats.InDoubt += uint64(n)
	case errors.Is(err, ErrNotSent):
		c.stats.NotSent += uint64(n)
	default:
		if c.rejected == nil {
			c.rejected = make(map[string]uint64)
		}
		c.rejected[rejection(err)] += uint64(n)
	}
}

// rejection returns what a message that the server rejected, or a local check,
// is counted under.
func rejection(err error) string {
	if e, ok := errors.AsType[*PushError](err); ok && e.Unwrap() == nil {
		return fmt.Sprintf("HTTP status %d", e.HTTPStatus)
	}
	if reason, ok := errors.AsType[Reason](err); ok {
		return string(reason)
	}
	if status, ok := errors.AsType[Status](err); ok {
		return status.Error()
	}
	return err.Error()
}

// start runs a function in a goroutine that Close waits for. It is false, and
// does nothing, if Close was called.
func (c *Client) start(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	if c.context == nil {
		c.context, c.cancel = context.WithCancel(context.Background())
	}
	c.running.Go(f)
	return true
}

// A firstConn is the connection that shows which wire the server speaks.
type firstConn struct {
	waiting int           // callers; protected by Client.mu
	done    chan struct{} // closed when it is made, or failed
	err     error         // for which it cannot be made
}

// findOut waits until it is known which wire the server speaks.
func (c *Client) findOut(ctx context.Context) (sender, error) {
	c.mu.Lock()
	if s := c.route.Load(); s != nil { // a moment ago
		c.mu.Unlock()
		return *s, nil
	}
	f := c.first
	begin := f == nil
	if begin {
		f = &firstConn{done: make(chan struct{})}
		c.first = f
	}
	f.waiting++
	c.mu.Unlock()
	if begin && !c.start(func() { c.connectFirst(f) }) {
		c.mu.Lock()
		c.first = nil
		c.mu.Unlock()
		f.err = net.ErrClosed
		close(f.done)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		c.mu.Lock()
		f.waiting--
		c.mu.Unlock()
		return nil, c.unsent(ctx.Err())
	}
	if s := c.route.Load(); s != nil {
		return *s, nil
	}
	return nil, c.unsent(f.err)
}

func (c *Client) connectFirst(f *firstConn) {
	conn, err := c.connect(func() bool { return !c.abandon(f) })
	if conn != nil && c.abandon(f) {
		conn.Close()
		conn = nil
	}
	if conn != nil {
		var s sender
		if conn.http2 != nil {
			s = newPool(c)
		} else {
			s = newLine(c)
		}
		s.add(conn)
		c.route.Store(&s)
		if c.closing.Load() { // Shutdown found nobody to hurry
			s.hurry()
		}
	}
	c.mu.Lock()
	if c.first == f {
		c.first = nil
	}
	c.mu.Unlock()
	f.err = err
	close(f.done)
}

// abandon reports whether nobody waits for a first connection, and if so, has the
// next caller begin anew.
func (c *Client) abandon(f *firstConn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiting == 0 && c.first == f {
		c.first = nil
	}
	return c.first != f
}

// unsent is the error of a message that was not sent because of err, which may be
// that of a context that ended while there was no connection.
func (c *Client) unsent(err error) error {
	c.mu.Lock()
	failure, closed := c.failure, c.closed
	c.mu.Unlock()
	switch {
	case closed && !errors.Is(err, context.DeadlineExceeded):
		return errClientClosed(ErrNotSent)
	case failure != nil && err != failure && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		// It is in the text alone, for it may be about other messages.
		return fmt.Errorf("%w: %w, while there was no connection (%s)", ErrNotSent, err, plainText(failure))
	}
	return fmt.Errorf("%w: %w", ErrNotSent, plainError{err})
}

// connect dials until there is a connection, or none is wanted any more, in which
// case it returns nil and nil. It fails if the Client is closed or if the server
// refuses the sender.
func (c *Client) connect(wanted func() bool) (*Conn, error) {
	for {
		c.mu.Lock()
		ctx, failure := c.context, c.failure
		wait := time.Until(c.due)
		refused := c.refused && wait > 0
		c.mu.Unlock()
		if refused {
			return nil, failure
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
			}
			t.Stop()
		}
		switch {
		case ctx.Err() != nil:
			return nil, net.ErrClosed
		case !wanted():
			return nil, nil
		}
		conn, err := c.dial(ctx)
		if err == nil {
			c.mu.Lock()
			c.stats.Connected++
			c.mu.Unlock()
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, net.ErrClosed
		}
		wait = c.failed(err)
		if isRefusal(err) {
			c.logger().Error("apns: the server refuses this sender, or is not the one that is expected", "error", err)
			return nil, err
		}
		c.logger().Warn("apns: cannot connect", "error", err, "again in", wait)
	}
}

func (c *Client) dial(ctx context.Context) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addr := c.Addr
	if addr == "" {
		addr = Production
	}
	conn, err := Dial(ctx, addr, c.dialConfig())
	if err != nil {
		return nil, err
	}
	s := c.route.Load()
	if s == nil {
		return conn, nil
	}
	if _, isPool := (*s).(*pool); isPool != (conn.http2 != nil) {
		conn.Close()
		return nil, fmt.Errorf("apns: %s negotiated the protocol %q, expected the one of the connection before", addr, conn.ConnectionState().NegotiatedProtocol)
	}
	return conn, nil
}

// dialConfig returns the Config with a cache for TLS sessions: to take one up again
// costs a fraction of what it costs to prove once more who one is. Where the
// certificate may be another each time, the session shall be too.
func (c *Client) dialConfig() *Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.config == nil {
		c.config = new(Config)
		if c.Config != nil {
			*c.config = *c.Config
		}
		if t := c.config.TLS; t == nil {
			c.config.TLS = new(tls.Config)
		} else {
			c.config.TLS = t.Clone()
		}
		if t := c.config.TLS; t.ClientSessionCache == nil && t.GetClientCertificate == nil {
			t.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		c.config.TLS.DynamicRecordSizingDisabled = true // half a message is of no use
	}
	return c.config
}

// worked notes that a message was settled over a connection.
func (c *Client) worked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failures, c.due, c.failure, c.refused = 0, time.Time{}, nil, false
	c.refusing.Store(false)
}

// failed notes a connection that could not be made, or over which nothing was
// settled, or the answer to a message that is the same for all. It returns how long
// to wait before the next attempt.
func (c *Client) failed(err error) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := backOff(minRedial, maxRedial, c.failures)
	c.failures++
	c.due, c.failure, c.refused = time.Now().Add(wait), err, isRefusal(err)
	c.refusing.Store(c.refused)
	return wait
}

// refusal returns the error with which the server refuses the sender, until it
// would be time to try again; or nil.
func (c *Client) refusal() error {
	if !c.refusing.Load() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused && time.Now().Before(c.due) {
		return c.failure
	}
	return nil
}

// backOff returns how long to wait after so many failures before this one. What
// is random in it comes of the clock, so that a simulated one repeats it.
func backOff(shortest, longest time.Duration, failures int) time.Duration {
	d := longest
	if failures < 16 {
		d = min(shortest<<failures, longest)
	}
	random := uint64(time.Now().UnixNano()) * 0x9e3779b97f4a7c15 >> 32
	return d - time.Duration(random)*(d/2)>>32
}

// resent counts messages that are sent once more.
func (c *Client) resent(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Resent += uint64(n)
}

func (c *Client) logger() *slog.Logger {
	if c.Config == nil {
		return new(Config).logger()
	}
	return c.Config.logger()
}

// isRefusal reports whether an error is one that time does not heal: whoever
// tries again gets it again.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*setupError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	return errors.Is(err, ErrRefused)
}

// plainText is an error's text, to stand in that of another.
func plainText(err error) string { return strings.TrimPrefix(err.Error(), "apns: ") }

// A plainError is an error, to stand in another.
type plainError struct{ err error }

func (e plainError) Error() string { return plainText(e.err) }
func (e plainError) Unwrap() error { return e.err }
