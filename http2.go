package apns

import (
	"bytes"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Receipt is what the HTTP/2 provider API says of a message that it accepted.
type Receipt struct {
	// APNsID is the server's name for the message: Message.APNsID, or one that
	// the server made up.
	APNsID string
	// UniqueID is the message's name in the Push Notifications Console. Only
	// the sandbox gives one.
	UniqueID string
}

// An http2Wire sends messages over the HTTP/2 provider API, on one connection. The
// source of what it says is "Sending notification requests to APNs", and of what
// it hears, "Handling notification responses from APNs".
type http2Wire struct {
	conn   *http.ClientConn
	frames *frameConn
	host   string // as in the request
	topic  string
	tokens *tokenTurn // nil: a certificate speaks for the sender
	log    *slog.Logger
	gate   gate
	pushes sync.Pool // of *push

	mu      sync.Mutex // protects following
	trusted bool       // a message was accepted, so that the limit is the server's
	limit   int        // the server's
	end     error      // why it takes no more messages; nil: it does
	changed func()     // unless nil: told when limit or end is another
}

// newHTTP2Wire begins to speak HTTP/2 over a connection that has negotiated it,
// and returns when the server has said how many streams it allows.
func newHTTP2Wire(ctx context.Context, c *Conn, addr, topic string, tokens *tokenSource) (*http2Wire, error) {
	w := &http2Wire{
		host:  strings.TrimSuffix(addr, ":443"),
		topic: topic,
		log:   c.log,
	}
	if tokens != nil {
		w.tokens = newTokenTurn(tokens)
	}
	w.frames = &frameConn{
		Conn:       c.tls,
		disconnect: func() { c.end(ending{cause: net.ErrClosed}); c.disconnect() },
		explain:    c.explain,
		onLimit:    w.setLimit,
		onGoAway:   w.setGoAway,
		onEnd: func(err error) {
			if w.turnAway(err) {
				w.log.Warn("apns: connection ended", "host", w.host, "error", err)
			}
		},
	}
	w.frames.start()
	transport := &http.Transport{
		// What this returns is not a *tls.Conn, because the frames must be seen.
		// That HTTP/2 is spoken over it has to be said here, then.
		DialTLSContext:     func(context.Context, string, string) (net.Conn, error) { return w.frames, nil },
		Protocols:          new(http.Protocols),
		DisableCompression: true,
		HTTP2: &http.HTTP2Config{
			// Each :path is another, so that a table costs more than it saves.
			MaxEncoderHeaderTableSize: 1,
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	var err error
	if w.conn, err = transport.NewClientConn(ctx, "https", addr); err != nil {
		w.frames.Close()
		return nil, err
	}
	select {
	case <-w.frames.ready:
		err = w.ended()
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// setLimit takes note of how many streams the server allows. With a provider
// token it is one until the server has accepted a message, whatever it says.
func (w *http2Wire) setLimit(limit int) {
	w.mu.Lock()
	w.limit = limit
	if w.tokens != nil && !w.trusted {
		limit = min(limit, 1)
	}
	w.gate.setLimit(limit)
	changed := w.changed
	w.mu.Unlock()
	if changed != nil {
		changed()
	}
}

func (w *http2Wire) accepted() {
	w.mu.Lock()
	known, limit := w.trusted, w.limit
	w.trusted = true
	w.mu.Unlock()
	if !known {
		w.setLimit(limit)
	}
}

func (w *http2Wire) setGoAway(g *goAway) {
	w.log.Warn("apns: GOAWAY", "host", w.host, "reason", string(g.reason), "code", g.code, "debug", g.debug)
	w.turnAway(g)
}

// turnAway has no more messages sent, for the given reason or for the one that
// there was before.
func (w *http2Wire) turnAway(why error) (first bool) {
	w.mu.Lock()
	first = w.end == nil
	if first {
		w.end = why
	}
	changed := w.changed
	w.mu.Unlock()
	w.gate.close()
	if first && changed != nil {
		changed()
	}
	return first
}

// ended says why the wire takes no more messages, or returns nil.
func (w *http2Wire) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

// refusal is what ended says about a message that is not sent because of it. The
// reason of a GOAWAY may be one that is about another message, and then it stands
// in the text alone.
func (w *http2Wire) refusal() error {
	end := w.ended()
	if g, ok := end.(*goAway); ok && !g.reason.isGeneral() {
		return errors.New(g.Error())
	}
	return end
}

var errClosed = fmt.Errorf("connection closed: %w", net.ErrClosed)

// The verbs of Conn.

func (w *http2Wire) CheckForError() error {
	if err := w.ended(); err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	return nil
}

func (w *http2Wire) Shutdown(ctx context.Context) error {
	w.turnAway(errClosed)
	err := w.gate.wait(ctx)
	w.close()
	if err != nil {
		return fmt.Errorf("apns: Shutdown was given up while messages were on their way: %w", err)
	}
	return nil
}

func (w *http2Wire) close() {
	w.turnAway(errClosed)
	w.conn.Close()
	w.frames.Close()
}

// push sends the message and waits for the answer.
func (w *http2Wire) push(ctx context.Context, m *Message) (Receipt, error) {
	p, err := w.prepare(m)
	if err != nil {
		return Receipt{}, err
	}
	if err := w.gate.enter(ctx); err != nil {
		w.pushes.Put(p)
		if err == errGateClosed {
			return Receipt{}, fmt.Errorf("%w: %w", ErrNotSent, w.refusal())
		}
		return Receipt{}, fmt.Errorf("%w: waiting for a stream: %w", ErrNotSent, err)
	}
	defer w.gate.leave()
	return w.send(ctx, p, m)
}

// What a Client needs of the HTTP/2 wire beside CheckForError: to see which
// connection has a stream free, and to take it.

// watch has a function be told when the number of streams or the end of the
// connection is another.
func (w *http2Wire) watch(changed func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.changed = changed
}

// streams returns how many the server allows, and whether that is all it ever
// will: not if it waits for a message that it can accept.
func (w *http2Wire) streams() (n int, trusted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.end != nil:
		return 0, false
	case w.tokens != nil && !w.trusted:
		return min(w.limit, 1), false
	}
	return w.limit, w.trusted
}

// reserve takes a stream for pushReserved, if one is free.
func (w *http2Wire) reserve() bool { return w.gate.tryEnter() }

// pushReserved is push with a stream that was reserved.
func (w *http2Wire) pushReserved(ctx context.Context, m *Message) (Receipt, error) {
	defer w.gate.leave()
	p, err := w.prepare(m)
	if err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		w.pushes.Put(p)
		return Receipt{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	return w.send(ctx, p, m)
}

// prepare returns the push of a message, or says what is wrong with it.
func (w *http2Wire) prepare(m *Message) (*push, error) {
	p, _ := w.pushes.Get().(*push)
	if p == nil {
		p = newPush(w.host)
	}
	if err := p.set(m, w.topic, w.tokens != nil); err != nil {
		w.pushes.Put(p)
		return nil, err
	}
	return p, nil
}

// send sends a push on a stream that is taken, and waits for the answer.
func (w *http2Wire) send(ctx context.Context, p *push, m *Message) (Receipt, error) {
	var bearer string
	if w.tokens != nil {
		var refreshed bool
		var err error
		bearer, refreshed, p.body.unwritten, err = w.tokens.take(ctx)
		if refreshed {
			w.log.Info("apns: new provider token", "host", w.host)
		}
		if err != nil {
			w.pushes.Put(p)
			return Receipt{}, fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		p.setHeader("Authorization", bearer)
	}
	res, err := w.conn.RoundTrip(p.request(ctx))
	if err != nil {
		// What is left of the request may still be in use.
		return Receipt{}, w.fate(ctx, err, p.body.stop())
	}
	answer, err := readAnswer(ctx, res)
	done := p.body.wait(ctx)
	p.body.stop()
	if done {
		w.pushes.Put(p)
	}
	if err != nil {
		// The status says whether it was accepted, even if no more came.
		w.log.Debug("apns: answer cut short", "host", w.host, "error", err)
	}
	if res.StatusCode/100 == 2 {
		w.accepted()
		return Receipt{APNsID: header(res, "Apns-Id"), UniqueID: header(res, "Apns-Unique-Id")}, nil
	}
	pushErr := &PushError{
		ID:         m.ID,
		HTTPStatus: res.StatusCode,
		Reason:     answer.Reason,
		APNsID:     header(res, "Apns-Id"),
		RetryAfter: retryAfter(header(res, "Retry-After")),
	}
	if answer.Timestamp > 0 {
		pushErr.DeadAt = time.UnixMilli(answer.Timestamp).UTC()
	}
	if pushErr.Reason == ReasonExpiredProviderToken && w.tokens != nil {
		w.tokens.source.expired(bearer)
	}
	return Receipt{}, pushErr
}

// fate tells what became of a message that got no answer. It was not sent if its
// payload was never asked for, or if the server says that it did not look at it.
func (w *http2Wire) fate(ctx context.Context, err error, written bool) error {
	fate := ErrInDoubt
	var reset streamError
	const refusedStream = 7
	switch {
	case !written,
		errors.As(err, &reset) && reset.Code == refusedStream,
		// Its stream is after the last one that the server takes.
		err.Error() == "http2: Transport received Server's graceful shutdown GOAWAY",
		strings.HasPrefix(err.Error(), "http2: Transport received GOAWAY from server ErrCode:"):
		fate = ErrNotSent
	}
	if err.Error() == "http2: client conn not usable" {
		w.turnAway(err) // net/http has given it up, without closing it
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", fate, ctx.Err())
	}
	if refusal := w.refusal(); refusal != nil {
		err = refusal
	}
	return fmt.Errorf("%w: %w", fate, err)
}

// A streamError has the shape of the error of net/http's HTTP/2, which lets
// errors.As find it.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return fmt.Sprintf("stream reset with code %d", e.Code) }

// A tokenTurn has the connection change its provider token at one point of the
// stream of messages. Were the old one to come after the new one, the server
// would take it for two changes, which are one too many.
type tokenTurn struct {
	source *tokenSource
	turn   chan struct{} // full while somebody has it; protects following
	before *gate         // those with the token before, until their header is written
	now    *gate         // those with the token that is used now
}

func newTokenTurn(source *tokenSource) *tokenTurn {
	return &tokenTurn{source: source, turn: make(chan struct{}, 1), before: newGate(math.MaxInt), now: newGate(math.MaxInt)}
}

// take returns the token for a push, and the gate that is to be left when its
// header is written.
func (t *tokenTurn) take(ctx context.Context) (bearer string, refreshed bool, unwritten *gate, err error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return "", false, nil, ctx.Err()
	}
	defer func() { <-t.turn }()
	for {
		if err := t.before.wait(ctx); err != nil {
			return "", refreshed, nil, err
		}
		bearer, changed, err := t.source.next()
		if err != nil {
			return "", refreshed, nil, err
		}
		if !changed {
			return bearer, refreshed, t.now, t.now.enter(ctx)
		}
		refreshed = true
		t.before, t.now = t.now, newGate(math.MaxInt)
	}
}

// A push is a request, and what is used again for the next one: its parts cost
// more to make than what is in them.
type push struct {
	req    *http.Request
	url    url.URL
	header http.Header
	body   body
}

func newPush(host string) *push {
	p := &push{
		url: url.URL{Scheme: "https", Host: host},
		// Empty so that net/http sends none of its own.
		header: http.Header{"User-Agent": {""}},
		body:   body{closed: make(chan struct{}, 1)},
	}
	p.req = &http.Request{
		Method:     http.MethodPost,
		URL:        &p.url,
		Host:       host,
		Header:     p.header,
		Proto:      "HTTP/2.0",
		ProtoMajor: 2,
		Body:       &p.body,
	}
	return p
}

// set makes the push that of a message, or says what is wrong with it.
func (p *push) set(m *Message, topic string, needsTopic bool) error {
	if badTokenSize(m.Token) {
		return tokenSizeError(m.Token)
	}
	for i := range len(m.Token) {
		if hexDigits[m.Token[i]] == 0 {
			return tokenDigitError(m.Token)
		}
	}
	limit := MaxPayload
	if m.PushType == PushTypeVoIP {
		limit = MaxVoIPPayload
	}
	if badPayloadSize(m.Payload, limit) {
		return payloadSizeError(m.Payload, limit)
	}
	if m.Topic != "" {
		topic = m.Topic
	}
	pushType := m.PushType
	if pushType == "" {
		pushType = PushTypeAlert
	}
	priority := m.Priority
	if priority == 0 && pushType == PushTypeBackground {
		priority = PriorityMedium
	}
	switch {
	case topic == "" && needsTopic:
		return &fieldError{ReasonMissingTopic, "topic is empty, and so is Config.Topic, expected one of them, since a provider token implies none"}
	case !isHeaderValue(topic):
		return &fieldError{ReasonBadTopic, fmt.Sprintf("topic is %q, expected printable ASCII", topic)}
	case !isHeaderValue(string(pushType)):
		return &fieldError{ReasonInvalidPushType, fmt.Sprintf("push type is %q, expected printable ASCII", pushType)}
	case len(m.CollapseID) > 64:
		return &fieldError{ReasonBadCollapseID, fmt.Sprintf("collapse ID has %d bytes, expected at most 64", len(m.CollapseID))}
	case !isHeaderValue(m.CollapseID):
		return &fieldError{ReasonBadCollapseID, fmt.Sprintf("collapse ID is %q, expected printable ASCII", m.CollapseID)}
	case m.APNsID != "" && !isUUID(m.APNsID):
		return &fieldError{ReasonBadMessageID, fmt.Sprintf("APNs ID is %q, expected a UUID as 123e4567-e89b-12d3-a456-4266554400a0", m.APNsID)}
	}
	switch priority {
	case 0:
		p.setHeader("Apns-Priority", "")
	case PriorityHigh:
		p.setHeader("Apns-Priority", "10")
	case PriorityMedium:
		p.setHeader("Apns-Priority", "5")
	case PriorityLow:
		p.setHeader("Apns-Priority", "1")
	default:
		return &fieldError{ReasonBadPriority, fmt.Sprintf("priority is %d, expected %d, %d or %d, or 0 to leave it out",
			m.Priority, PriorityHigh, PriorityMedium, PriorityLow)}
	}
	expiry := ""
	if !m.Expiry.IsZero() {
		expiry = strconv.FormatInt(max(m.Expiry.Unix(), 0), 10)
	}
	p.setHeader("Apns-Expiration", expiry)
	p.setHeader("Apns-Topic", topic)
	p.setHeader("Apns-Push-Type", string(pushType))
	p.setHeader("Apns-Collapse-Id", m.CollapseID)
	p.setHeader("Apns-Id", m.APNsID)
	p.url.Path = "/3/device/" + m.Token
	p.req.ContentLength = int64(len(m.Payload))
	p.body.reset(m.Payload)
	return nil
}

// setHeader sets a header, or removes it if the value is empty.
func (p *push) setHeader(name, value string) {
	if value == "" {
		delete(p.header, name)
		return
	}
	p.header[name] = append(p.header[name][:0], value)
}

// request returns the request for a context. It is the same one as long as the
// context is, because another costs a copy.
func (p *push) request(ctx context.Context) *http.Request {
	was := p.req.Context()
	if !isSame(was, ctx) {
		p.req = p.req.WithContext(ctx)
	}
	return p.req
}

func isHeaderValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return strings.TrimSpace(s) == s
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch i {
		case 8, 13, 18, 23:
			if s[i] != '-' {
				return false
			}
		default:
			if hexDigits[s[i]] == 0 {
				return false
			}
		}
	}
	return true
}

// A body is the payload as net/http reads it. It knows whether that has begun,
// which is when the header is written.
type body struct {
	closed chan struct{} // full when net/http is done with the request

	mu        sync.Mutex // protects following
	left      bytes.Reader
	read      bool
	unwritten *gate // unless nil: to be left when the header is written
	stopped   bool
}

func (b *body) reset(payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left.Reset(payload)
	b.unwritten = nil
	b.read, b.stopped = false, false
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return 0, net.ErrClosed
	}
	b.read = true
	b.written()
	n, err := b.left.Read(p)
	if b.left.Len() == 0 {
		err = io.EOF // at once, or net/http would ask again
	}
	return n, err
}

// written notes that the header is written, or never will be; the caller holds
// b.mu.
func (b *body) written() {
	if b.unwritten != nil {
		b.unwritten.leave()
		b.unwritten = nil
	}
}

// Close is called by net/http, once for each request.
func (b *body) Close() error {
	select {
	case b.closed <- struct{}{}:
	default:
	}
	return nil
}

// wait waits until net/http is done with the request. It is false if it may not
// be: it closes the body of a message that was rejected early, and may read it
// after that.
func (b *body) wait(ctx context.Context) bool {
	select {
	case <-b.closed:
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.left.Len() == 0
	case <-ctx.Done():
		return false
	}
}

// stop has nothing be read any more, and reports whether something was.
func (b *body) stop() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopped = true
	b.written()
	return b.read
}

// An answer is the body of a rejection, and of a GOAWAY.
type answer struct {
	Reason    Reason `json:"reason"`
	Timestamp int64  `json:"timestamp"` // of a 410, in milliseconds
}

// readAnswer reads the rejection. What is no JSON is no reason, and no error: it
// may come from something in between.
func readAnswer(ctx context.Context, res *http.Response) (a answer, err error) {
	if res.ContentLength == 0 && res.Header["Content-Length"] == nil {
		return answer{}, nil // net/http knows that by the end of the stream
	}
	defer res.Body.Close()
	// net/http may be too busy writing to hear of it.
	defer context.AfterFunc(ctx, func() { res.Body.Close() })()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if res.StatusCode/100 != 2 {
		json.Unmarshal(b, &a)
	}
	return a, err
}

func header(res *http.Response, name string) string {
	if v := res.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// retryAfter reads seconds or a date; what is neither is zero.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}

// A goAway is the server's last word about a connection.
type goAway struct {
	code   uint32
	reason Reason
	debug  string // of which the reason is a part
}

func (g *goAway) Error() string {
	switch {
	case g.reason != "":
		return "the server takes no more messages on this connection (GOAWAY): " + string(g.reason)
	case g.debug != "":
		return fmt.Sprintf("the server takes no more messages on this connection (GOAWAY, code %d): %q", g.code, g.debug)
	}
	return fmt.Sprintf("the server takes no more messages on this connection (GOAWAY, code %d)", g.code)
}

func (g *goAway) Unwrap() error {
	if g.reason == "" {
		return nil
	}
	return g.reason
}

// A gate lets in as many as the limit says, in the order in which they came.
type gate struct {
	mu      sync.Mutex // protects following
	limit   int
	inside  int
	waiting list.List // of chan bool, told whether they are let in
	closed  bool
	empty   chan struct{} // unless nil: closed when nobody is inside
}

var errGateClosed = errors.New("closed")

func newGate(limit int) *gate { return &gate{limit: limit} }

// enter waits to be let in.
func (g *gate) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errGateClosed
	}
	if g.inside < g.limit && g.waiting.Len() == 0 {
		g.inside++
		g.mu.Unlock()
		return nil
	}
	in := make(chan bool, 1)
	e := g.waiting.PushBack(in)
	g.mu.Unlock()
	select {
	case ok := <-in:
		if !ok {
			return errGateClosed
		}
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		select {
		case ok := <-in: // let in at the same moment
			if ok {
				g.inside--
				g.admit()
			}
		default:
			g.waiting.Remove(e)
		}
		return ctx.Err()
	}
}

// tryEnter is enter for those who do not wait.
func (g *gate) tryEnter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.inside >= g.limit || g.waiting.Len() > 0 {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.admit()
}

func (g *gate) setLimit(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limit = n
	g.admit()
}

// close turns away those who wait and those who come; who is inside stays.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for e := g.waiting.Front(); e != nil; e = g.waiting.Front() {
		g.waiting.Remove(e).(chan bool) <- false
	}
	g.admit()
}

// admit lets in who may; the caller holds g.mu.
func (g *gate) admit() {
	for g.inside < g.limit && g.waiting.Len() > 0 {
		g.inside++
		g.waiting.Remove(g.waiting.Front()).(chan bool) <- true
	}
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// wait waits until nobody is inside.
func (g *gate) wait(ctx context.Context) error {
	g.mu.Lock()
	if g.inside == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.mu.Unlock()
	select {
	case <-empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
