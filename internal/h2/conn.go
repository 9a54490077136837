package h2

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"

	"example.com/apns/internal/hpack"
)

// A Conn is the client's end of a connection. It has no goroutine, no clock and no
// policy. Two goroutines drive it:
//
//   - The writer calls Open for each request that there is room for, and Flush.
//   - The reader calls Read until it fails, and takes the outcomes it returns.
//
// The other methods may be called by any goroutine. When both goroutines have
// ended, Rest returns the outcomes that are left. So each request that Open took
// has exactly one outcome: from Read, from Cancel or from Rest.
type Conn struct {
	rw io.ReadWriter

	// Of the reader:
	reader    *Reader
	decoder   *hpack.Decoder
	validator Validator
	decoding  *Response // that the fields of the block go to
	emit      func(name, value []byte)
	outcomes  []Outcome
	reported  []*Response // by the last Read
	unused    []*Response

	mu      sync.Mutex // protects following; never held during I/O or decoding
	flushed sync.Cond  // of mu: Flush has taken the replies, or the connection is closed

	out     []byte // encoded, and not taken by Flush
	spare   []byte // the buffer that Flush wrote last
	taken   uint64 // how many bytes Flush has taken
	written uint64 // how many of those are written, counted in whole TLS records
	broken  error  // of a write, after which written stays as it is
	replies int    // frames in out that the server made us send

	encoder   hpack.Encoder
	streams   table
	next      uint32   // the number of the next stream
	limit     int      // streams that may be open, as far as this end is concerned
	held      []uint32 // streams with a part of the body that had no window
	unblocked bool     // a window has grown since held was looked at
	window    int64    // how many bytes of DATA the server takes on the connection
	server    settings
	ready     bool // the server's first SETTINGS have come
	ackDue    bool // the server has not acknowledged ours
	goAway    *GoAway
	closed    bool // nothing more is opened

	pings     uint64   // PINGs sent
	pinging   bool     // the last one has no answer yet
	confirmed []uint32 // streams that its answer confirms to be closed
	reset     []uint32 // streams that were reset after it

	credit  int // bytes of DATA received and not yet given back by WINDOW_UPDATE
	empty   int // DATA frames without payload and end
	odd     int // frames that are legal and of no use
	answers int // responses so far; each allows for one more odd frame
}

// The settings of a server. See RFC 9113, section 6.5.2.
type settings struct {
	streams    int   // MAX_CONCURRENT_STREAMS
	window     int64 // INITIAL_WINDOW_SIZE
	headerList int64 // MAX_HEADER_LIST_SIZE; negative: no limit
}

// The limits that a server cannot exceed. Each bounds what a broken or hostile one
// can cost.
const (
	// maxStreams bounds the streams that are open at a time, whatever the server
	// allows, and with them the table of streams. Apple allows 1,000.
	maxStreams = 2048
	// defaultStreams is how many streams may be open if the server's first
	// SETTINGS do not say. RFC 9113 has no limit then; other clients use the same.
	defaultStreams = 1000
	// lastStream is the number after which no stream is opened. It leaves half a
	// million numbers, so that no mistake in counting can use up the last one.
	lastStream = MaxStream - 1<<20
	// maxList bounds the fields of a response, as RFC 9113 counts them, in bytes.
	// It is announced. What exceeds it makes the response malformed.
	maxList = 16 << 10
	// maxDecoded bounds what a header block can be decompressed to, in bytes. A
	// block of 16 KiB could name a large entry of the table thousands of times.
	maxDecoded = 64 << 10
	// maxInformational bounds the 1xx responses before the final one. A server has a
	// use for two, 100 and 103, and APNs for none.
	maxInformational = 8
	// maxBody is how much of a response's body is kept, in bytes, unless the request has
	// a ResponseSize. Apple's answers to a push have less than 100.
	maxBody = 4 << 10
	// maxReused is the size of the largest response whose memory is used again, in
	// bytes.
	maxReused = 2 << 10
	// streamWindow is how many bytes of body a response can have, unless the request has
	// a ResponseSize. It is never extended: a stream that uses it up is reset, and its
	// status is the answer.
	streamWindow = DefaultWindow
	// connWindow is how many bytes of DATA the server can send on all streams
	// before it has to wait for credit.
	connWindow = 1 << 20
	// minCredit is the smallest credit that is worth a WINDOW_UPDATE, in bytes.
	minCredit = connWindow / 2
	// maxReplies bounds the frames queued because the server asked for them:
	// acknowledgements, resets. Read waits until they are sent. A server that waits
	// for answers as it should has one or two.
	maxReplies = 100
	// maxEmpty bounds the DATA frames that have nothing in them and do not end a
	// response, in addition to one for each answer: an odd server may send one.
	maxEmpty = 100
	// maxOdd bounds the frames that are legal and of no use, such as those of closed
	// streams, in addition to one for each answer. When many requests are cancelled
	// at a time, their answers come all the same.
	maxOdd = 10_000
	// maxDebug is how much of a GOAWAY's debug data is kept, in bytes. Apple's is JSON
	// of less than 100.
	maxDebug = 4 << 10
)

// A Request is what a stream is opened for.
type Request struct {
	Method    string
	Authority string
	Dir, Name string  // the path is Dir and then Name
	Fields    []Field // the names in lower case
	// Literals are fields that are encoded already, by hpack.AppendLiteral, and
	// LiteralSize is their size as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
	Literals    []byte
	LiteralSize int
	Body        []byte
	// ResponseSize, if it is more than 64 KiB, is how many bytes of body the response may
	// have. All of them are kept, and not only the first 4 KiB.
	ResponseSize int
	Tag          any // comes back with the outcome
}

// A Field is a field of a request.
type Field struct {
	Name, Value string
	Indexing    hpack.Indexing
}

// headerSize is the size of the header as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
func (r *Request) headerSize() int64 {
	const pseudo = len(":method") + len(":scheme") + len("https") + len(":authority") + len(":path") + 4*32
	n := pseudo + len(r.Method) + len(r.Authority) + len(r.Dir) + len(r.Name) + r.LiteralSize
	for _, f := range r.Fields {
		n += len(f.Name) + len(f.Value) + 32
	}
	return int64(n)
}

// A HeaderSizeError says that the server does not take a header as large as that of
// a request. The request was not sent.
type HeaderSizeError struct{ Size, Limit int64 }

func (e *HeaderSizeError) Error() string {
	return fmt.Sprintf("the request's header has %d bytes, and the server takes at most %d (SETTINGS_MAX_HEADER_LIST_SIZE)", e.Size, e.Limit)
}

// A GoAway is the server's announcement that it takes no more streams.
type GoAway struct {
	Last  uint32 // the last stream that it may have processed
	Code  Code
	Debug string // at most 4 KiB
}

// NewConn begins a connection: the preface and the first SETTINGS wait for Flush.
func NewConn(rw io.ReadWriter) *Conn {
	c := &Conn{
		rw:      rw,
		reader:  NewReader(rw),
		decoder: hpack.NewDecoder(4096, maxDecoded),
		next:    1,
		limit:   maxStreams,
		window:  DefaultWindow,
		server:  settings{streams: defaultStreams, window: DefaultWindow, headerList: -1},
		ackDue:  true,
	}
	c.flushed.L = &c.mu
	c.emit = c.addField
	c.out = append(c.out, Preface...)
	c.out = AppendSettings(c.out, SettingValue{SettingEnablePush, 0}, SettingValue{SettingMaxHeaderListSize, maxList})
	c.out = AppendWindowUpdate(c.out, 0, connWindow-DefaultWindow)
	return c
}

// SkipTo makes n the lowest number that the next stream can have. It is for tests of
// used-up numbers.
func (c *Conn) SkipTo(n uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = max(c.next, n|1)
}

// Room returns how many streams can be opened now. It is 0 before the server's
// first SETTINGS and after a GOAWAY.
func (c *Conn) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.roomLocked()
}

func (c *Conn) roomLocked() int {
	if c.closed || c.goAway != nil || !c.ready || c.next > lastStream || c.window <= 0 {
		return 0
	}
	numbers := int(lastStream-c.next)/2 + 1
	return max(0, min(c.server.streams-c.streams.used, c.limit-c.streams.used, numbers))
}

// Limit returns how many streams the server and SetLimit allow at a time.
func (c *Conn) Limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(c.server.streams, c.limit)
}

// SetLimit sets how many streams may be open at a time, if the server allows more. The
// default is 2,048, which is also the largest.
func (c *Conn) SetLimit(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = min(n, maxStreams)
}

// Active returns how many requests have no outcome yet.
func (c *Conn) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams.active
}

// Ready reports whether the server's first SETTINGS have come.
func (c *Conn) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready
}

// GoAway returns the server's last GOAWAY, or nil. It makes one up when the numbers
// of streams are used up, since that means the same.
func (c *Conn) GoAway() *GoAway {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goAway == nil && c.next > lastStream {
		c.goAway = &GoAway{Last: MaxStream, Debug: "the stream numbers of this connection are used up"}
	}
	return c.goAway
}

// Pending reports whether there is something for Flush to write.
func (c *Conn) Pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out) > 0 || c.unblocked || c.credit >= minCredit
}

// Open opens a stream for a request, and encodes it for the next Flush. Only the
// writer may call it. It keeps nothing of the request but the Tag. The number of
// the stream is 0 if there is no room for it. The only error is a *HeaderSizeError.
func (c *Conn) Open(r *Request) (stream uint32, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roomLocked() == 0 {
		return 0, nil
	}
	if limit := c.server.headerList; limit >= 0 {
		if size := r.headerSize(); size > limit {
			return 0, &HeaderSizeError{size, limit}
		}
	}
	s := c.streams.add(&c.next)
	s.tag, s.window, s.opened = r.Tag, c.server.window, c.taken
	start := len(c.out)
	var flags Flags
	if len(r.Body) == 0 {
		flags = FlagEndStream
	}
	c.out = AppendHeader(c.out, 0, TypeHeaders, flags, s.id)
	c.appendBlockLocked(r)
	c.out = EndHeaders(c.out, start, MinMaxFrameSize)
	if r.ResponseSize > streamWindow {
		s.large = r.ResponseSize
		c.out = AppendWindowUpdate(c.out, s.id, uint32(s.large-streamWindow))
	}
	if rest := c.appendDataLocked(s, r.Body); len(rest) > 0 {
		s.held = append([]byte(nil), rest...)
		c.held = c.streams.list(c.held, s.id)
	}
	return s.id, nil
}

// appendBlockLocked appends the header block of a request. Apple asks that ":path",
// which differs each time, stay out of the table ("Sending notification requests
// to APNs").
func (c *Conn) appendBlockLocked(r *Request) {
	e := &c.encoder
	b := e.AppendBegin(c.out)
	b = e.AppendField(b, ":method", r.Method, hpack.Literal)
	b = e.AppendField(b, ":scheme", "https", hpack.Literal)
	b = e.AppendField(b, ":authority", r.Authority, hpack.Index)
	b = hpack.AppendPath(b, r.Dir, r.Name)
	b = append(b, r.Literals...)
	for i := range r.Fields {
		f := &r.Fields[i]
		b = e.AppendField(b, f.Name, f.Value, f.Indexing)
	}
	c.out = b
}

// appendDataLocked appends as much of a body as the windows allow, and returns the
// rest. With an empty body it notes that the request is whole.
func (c *Conn) appendDataLocked(s *stream, body []byte) []byte {
	for len(body) > 0 {
		n := int(min(int64(len(body)), MinMaxFrameSize, s.window, c.window))
		if n <= 0 {
			return body
		}
		var flags Flags
		if n == len(body) {
			flags = FlagEndStream
		}
		c.out = AppendFrame(c.out, TypeData, flags, s.id, body[:n])
		s.window -= int64(n)
		c.window -= int64(n)
		body = body[n:]
	}
	s.end = c.taken + uint64(len(c.out))
	return nil
}

// appendHeldLocked appends what was held back and has a window now.
func (c *Conn) appendHeldLocked() {
	c.unblocked = false
	held := c.held[:0]
	for _, id := range c.held {
		s := c.streams.get(id)
		if s == nil || s.held == nil {
			continue // it has its outcome
		}
		if s.held = c.appendDataLocked(s, s.held); s.held != nil {
			held = append(held, id)
		}
	}
	c.held = held
}

// Flush writes what is pending, in one piece. Only the writer may call it. After an
// error nothing more can be written; what the server has said may still be read.
func (c *Conn) Flush() error {
	c.mu.Lock()
	if err := c.broken; err != nil {
		c.mu.Unlock()
		return err
	}
	if c.unblocked {
		c.appendHeldLocked()
	}
	if c.credit >= minCredit {
		c.out = AppendWindowUpdate(c.out, 0, uint32(c.credit))
		c.credit = 0
	}
	b := c.out
	c.out, c.spare = c.spare[:0], nil
	c.taken += uint64(len(b))
	c.replies = 0
	c.flushed.Broadcast()
	c.mu.Unlock()
	n, err := 0, error(nil)
	if len(b) > 0 {
		n, err = c.rw.Write(b)
	}
	if n < len(b) && err == nil {
		err = io.ErrShortWrite
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written += uint64(n)
	if cap(b) <= 8*MinMaxFrameSize {
		c.spare = b[:0]
	}
	if err != nil {
		c.broken = err
		c.closeLocked()
	}
	return err
}

// Ping queues a PING for the next Flush, unless one is unanswered.
func (c *Conn) Ping() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pingLocked()
}

// Pinging reports whether a PING is unanswered.
func (c *Conn) Pinging() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pinging
}

func (c *Conn) pingLocked() {
	if c.pinging {
		return
	}
	c.pinging = true
	c.pings++
	c.confirmed, c.reset = c.reset, c.confirmed[:0]
	var data [8]byte
	binary.BigEndian.PutUint64(data[:], c.pings)
	c.out = AppendPing(c.out, 0, data)
}

// Cancel abandons a request, and returns its outcome: what is known at this moment.
// It is false if the request has its outcome already. The next Flush resets the
// stream.
func (c *Conn) Cancel(stream uint32) (Outcome, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.streams.get(stream)
	if s == nil || s.abandoned {
		return Outcome{}, false
	}
	o := c.outcomeLocked(s)
	c.abandonLocked(s, CodeCancel)
	return o, true
}

// abandonLocked resets a stream whose outcome is known. The stream counts as open
// until the server ends it, or answers a PING that was sent after the reset: a
// server that is slow is not to be flooded with requests that nobody waits for.
func (c *Conn) abandonLocked(s *stream, code Code) {
	c.out = AppendRSTStream(c.out, s.id, code)
	c.streams.abandon(s)
	c.reset = c.streams.list(c.reset, s.id)
	c.pingLocked()
}

// Close stops opening streams, and queues a GOAWAY for the next Flush.
func (c *Conn) Close(code Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.out = AppendGoAway(c.out, 0, code, nil) // the server has opened no streams
	}
	c.closeLocked()
}

func (c *Conn) closeLocked() {
	c.closed = true
	c.flushed.Broadcast()
}

// Rest returns the outcomes of all requests that have none. It must be called when
// Flush and Read have returned for the last time.
func (c *Conn) Rest() []Outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = io.ErrClosedPipe // nothing more will be written
	}
	var rest []Outcome
	for s := range c.streams.all() {
		if !s.abandoned {
			rest = append(rest, c.outcomeLocked(s))
		}
		c.streams.remove(s)
	}
	return rest
}
