package apns

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"net"
	"strings"
	"sync"
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

	// InDoubt says what becomes of a message that is in doubt. Zero means
	// InDoubtReport.
	InDoubt InDoubtPolicy

	// MaxInFlight is how many messages are in flight at most, over all connections
	// and callers: written, and without an answer. Zero means 40,960.
	//
	// Over HTTP/2 a connection starts with 100 and takes more while that brings more
	// answers a second, up to the server's limit. On the binary protocol a
	// connection takes up to three quarters of MaxInFlight before its barrier, and
	// fewer after a connection that ended without an answer.
	MaxInFlight int

	// MaxConns is how many connections there may be over HTTP/2. Zero means 4.
	MaxConns int

	// MaxDialBackoff is the longest time between two attempts to connect, where the
	// failure may pass with time. Zero means 10 seconds.
	MaxDialBackoff time.Duration

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

	// OnAttempt, if not nil, is called with each attempt to send a message, when its
	// outcome is known and before Push or PushAll return it. It is called by the
	// goroutine that has learned the outcome, without a lock, and possibly by several
	// at a time. It must return quickly, and must not call the Client's Push, PushAll,
	// Shutdown or Close.
	OnAttempt func(Attempt)

	once sync.Once
	d    *dispatcher // made at the first call
}

// dispatcher returns the dispatcher, and makes it at the first call.
func (c *Client) dispatcher() *dispatcher {
	c.once.Do(func() {
		log := new(Config).logger()
		if c.Config != nil {
			log = c.Config.logger()
		}
		c.d = newDispatcher(settings{
			timeout:         positive(c.Timeout, defaultTimeout),
			maxAttempts:     min(positive(c.Attempts, defaultAttempts), math.MaxUint16),
			maxInFlight:     positive(c.MaxInFlight, defaultMaxInFlight),
			maxConns:        positive(c.MaxConns, defaultMaxConns),
			confirmInterval: positive(c.ConfirmInterval, defaultConfirmInterval),
			assumeAccepted:  max(c.AssumeAcceptedAfter, 0),
			inDoubt:         c.InDoubt,
			observe:         c.OnAttempt,
		}, log)
		c.d.dialer = newDialer(c.d, cmp.Or(c.Addr, Production), c.Config, positive(c.MaxDialBackoff, defaultMaxDialBackoff))
	})
	return c.d
}

// An InDoubtPolicy says what becomes of a message that was written, and about which
// nothing was heard.
type InDoubtPolicy int

const (
	// InDoubtReport reports it, with an error that matches ErrInDoubt.
	InDoubtReport InDoubtPolicy = iota
	// InDoubtResendCollapsible resends it, until its Attempts run out, if it has a
	// CollapseID and was sent over HTTP/2: a double then replaces the first one, but
	// may sound once more.
	InDoubtResendCollapsible
	// InDoubtResend resends it, until its Attempts run out. It may be delivered twice:
	// Apple does not promise to drop a double with the same apns-id. Where
	// connections of the binary protocol end without a word, the Client asks for a
	// confirmation after fewer and fewer messages, so that it makes progress with a
	// gateway that takes a few on each.
	InDoubtResend
)

// Push sends the message and waits for its fate. The error says which it is: see
// [Client]. The Receipt is what the server says of a message that it accepted
// over HTTP/2.
//
// If ctx has no deadline, the message has Timeout. On the binary wire Push waits
// for a proof, which it shares with all other calls: one after the other takes
// ConfirmInterval for each, and many at a time no longer than that for all.
func (c *Client) Push(ctx context.Context, m *Message) (Receipt, error) {
	return c.dispatcher().push(ctx, m)
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
		newPushAll(ctx, c.dispatcher()).run(msgs, yield)
	}
}

// Stats returns the figures of this moment.
func (c *Client) Stats() Stats { return c.dispatcher().figures() }

// Shutdown waits until every message that was handed over has its fate, and then
// ends the connections. Messages that come meanwhile end with ErrNotSent. On the
// binary wire it has the proof asked for at once. If ctx ends first, that is the
// error, and what is outstanding goes on: call Close to end it.
func (c *Client) Shutdown(ctx context.Context) error {
	d := c.dispatcher()
	d.mu.Lock()
	drained := d.shutDownLocked(errClientClosed)
	d.unlock()
	select {
	case <-drained:
		return c.Close()
	case <-ctx.Done():
	}
	s := c.Stats()
	return fmt.Errorf("apns: Shutdown was cancelled while %d messages were without an outcome: %w", s.InFlight+s.Waiting, ctx.Err())
}

var errClientClosed = fmt.Errorf("the client is closed: %w", net.ErrClosed)

// Close ends all connections, whatever is outstanding, and returns when nothing
// is left running, which takes up to a second where a server does not read.
// Messages that were written end with ErrInDoubt, others with ErrNotSent. The
// error is always nil.
func (c *Client) Close() error {
	c.dispatcher().close(errClientClosed)
	return nil
}

const (
	defaultTimeout         = time.Minute
	defaultAttempts        = 10
	defaultMaxInFlight     = 40 << 10
	defaultMaxConns        = 4
	defaultConfirmInterval = time.Second
	defaultMaxDialBackoff  = 10 * time.Second
)

func positive[T int | time.Duration](n, otherwise T) T {
	if n <= 0 {
		return otherwise
	}
	return n
}

// plainText is an error's text, to stand in that of another.
func plainText(err error) string { return strings.TrimPrefix(err.Error(), "apns: ") }

// A plainError is an error, to stand in another.
type plainError struct{ err error }

func (e plainError) Error() string { return plainText(e.err) }
func (e plainError) Unwrap() error { return e.err }
