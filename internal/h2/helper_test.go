package h2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// A script is the connection under a Conn: a test queues what Read returns, and
// looks at what was written.
type script struct {
	reads   [][]byte // what the server has sent; each Read returns one, or a part of one
	readErr error    // what Read returns after them
	written []byte
	writes  int   // how many there were
	room    int   // how many more bytes Write takes before it fails; negative: no limit
	fail    error // what it fails with
}

var (
	errNothing = errors.New("the test has queued nothing to read")
	errWrite   = errors.New("the test has this write fail")
)

func newScript() *script { return &script{readErr: errNothing, room: -1, fail: errWrite} }

func (s *script) Read(b []byte) (int, error) {
	if len(s.reads) == 0 {
		return 0, s.readErr
	}
	n := copy(b, s.reads[0])
	if s.reads[0] = s.reads[0][n:]; len(s.reads[0]) == 0 {
		s.reads = s.reads[1:]
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error) {
	s.writes++
	if s.room >= 0 && len(b) > s.room {
		n := s.room
		s.written, s.room = append(s.written, b[:n]...), 0
		return n, s.fail
	}
	if s.room >= 0 {
		s.room -= len(b)
	}
	s.written = append(s.written, b...)
	return len(b), nil
}

// A client is a Conn with its script. Its methods fail the test if anything is
// unexpected.
type client struct {
	*h2.Conn
	t       testing.TB
	script  *script
	sends   *strictServer     // checks what was sent
	headers map[uint32]string // the fields of each request that was sent
	log     []string          // all outcomes, as text
}

// newUnsettled returns a client before the server's first SETTINGS have come.
func newUnsettled(t testing.TB) *client {
	s := newScript()
	return &client{
		Conn:    h2.NewConn(s),
		t:       t,
		script:  s,
		sends:   newStrictServer(t),
		headers: make(map[uint32]string),
	}
}

// newClient returns a client that has the server's SETTINGS, and that has sent its
// own and the acknowledgement.
func newClient(t testing.TB, s ...h2.SettingValue) *client {
	c := newUnsettled(t)
	c.flush()
	c.receive(h2.AppendSettings(nil, s...), h2.AppendSettingsAck(nil))
	c.flush()
	c.sent()
	return c
}

// open opens streams for requests with a body of 2 bytes, and returns the number of
// the last one.
func (c *client) open(tags ...string) (stream uint32) {
	c.t.Helper()
	for _, tag := range tags {
		stream = c.openBody(tag, "{}")
	}
	return stream
}

func (c *client) openBody(tag, body string) uint32 {
	c.t.Helper()
	stream, err := c.Open(request(tag, body))
	if err != nil || stream == 0 {
		c.t.Fatalf("Open of request %s: got stream %d, %v, want a stream", tag, stream, err)
	}
	return stream
}

func request(tag, body string) *h2.Request {
	return &h2.Request{Method: "POST", Authority: "push", Dir: "/", Name: tag, Body: []byte(body), Tag: tag}
}

func (c *client) flush() {
	c.t.Helper()
	writes, written := c.script.writes, len(c.script.written)
	if err := c.Flush(); err != nil {
		c.t.Fatalf("Flush: got %v, want nil", err)
	}
	want := 0
	if len(c.script.written) > written {
		want = 1
	}
	if got := c.script.writes - writes; got != want {
		c.t.Errorf("Flush of %d bytes: got %d writes, want %d", len(c.script.written)-written, got, want)
	}
}

// receive has the client read frames, all at once, and returns the outcomes as text.
func (c *client) receive(frames ...[]byte) string {
	c.t.Helper()
	outcomes, err := c.read(0, frames...)
	if err != nil {
		c.t.Fatalf("Read: got error %v, want nil", err)
	}
	return outcomes
}

// read has the client read frames in parts of so many bytes, or all at once if that
// is 0. It returns the outcomes as text.
func (c *client) read(part int, frames ...[]byte) (outcomes string, err error) {
	b := slices.Concat(frames...)
	if part == 0 {
		part = max(1, len(b))
	}
	for part := range slices.Chunk(b, part) {
		c.script.reads = append(c.script.reads, part)
	}
	var got []string
	for len(c.script.reads) > 0 && err == nil {
		var o []h2.Outcome
		o, err = c.Read()
		got = append(got, texts(o)...)
	}
	c.log = append(c.log, got...)
	return strings.Join(got, "; "), err
}

// end has the client read the end of the connection, and returns all outcomes that
// are left.
func (c *client) end(err error) string {
	c.t.Helper()
	c.script.reads, c.script.readErr = nil, err
	outcomes, got := c.Read()
	if got != err {
		c.t.Errorf("Read at the end: got error %v, want %v", got, err)
	}
	rest := append(texts(outcomes), texts(c.Rest())...)
	c.log = append(c.log, rest...)
	return strings.Join(rest, "; ")
}

// cancel cancels a stream and returns the outcome as text, or "none".
func (c *client) cancel(stream uint32) string {
	o, ok := c.Cancel(stream)
	if !ok {
		return "none"
	}
	c.log = append(c.log, text(o))
	return text(o)
}

// sent returns the frames that were written since the last call, as text.
func (c *client) sent() string {
	c.t.Helper()
	frames := c.sends.take(c.script.written)
	c.script.written = nil
	var all []string
	for _, f := range frames {
		all = append(all, f.text())
	}
	for stream, block := range c.sends.blocks {
		c.headers[stream] = block
	}
	clear(c.sends.blocks)
	return strings.Join(all, "; ")
}

// flushed flushes, and returns what was written since the last call of sent.
func (c *client) flushed() string {
	c.t.Helper()
	c.flush()
	return c.sent()
}

// text returns, for example, `a answered 200 "body"`. A response that the server has
// not ended is "cut". One to a request that it cannot have processed is "early".
func text(o h2.Outcome) string {
	s := fmt.Sprintf("%v %v", o.Tag, o.Kind)
	switch o.Kind {
	case h2.Answered:
		s += fmt.Sprintf(" %d", o.Response.Status)
		if len(o.Response.Body) > 0 {
			s += fmt.Sprintf(" %.20q", o.Response.Body)
		}
		if !o.Response.Whole {
			s += " cut"
		}
		if o.Early {
			s += " early"
		}
	case h2.Reset:
		s += " " + o.Code.String()
	}
	return s
}

func texts(outcomes []h2.Outcome) (all []string) {
	for _, o := range outcomes {
		all = append(all, text(o))
	}
	return all
}

// The frames of a server.

func settings(s ...h2.SettingValue) []byte { return h2.AppendSettings(nil, s...) }

func setting(s h2.Setting, value uint32) []byte { return settings(h2.SettingValue{s, value}) }

// block returns a header block. It uses no dynamic table.
func block(namesAndValues ...string) (b []byte) {
	for nv := range slices.Chunk(namesAndValues, 2) {
		b = hpack.AppendLiteral(b, nv[0], nv[1])
	}
	return b
}

func headers(stream uint32, flags h2.Flags, namesAndValues ...string) []byte {
	return h2.AppendHeaders(nil, flags, stream, block(namesAndValues...), h2.MinMaxFrameSize)
}

// answer returns a whole response without a body.
func answer(stream uint32, status string) []byte {
	return headers(stream, h2.FlagEndStream, ":status", status)
}

// begin returns the beginning of a response that has a body.
func begin(stream uint32, status string) []byte { return headers(stream, 0, ":status", status) }

func data(stream uint32, flags h2.Flags, body string) []byte {
	return h2.AppendFrame(nil, h2.TypeData, flags, stream, []byte(body))
}

func reset(stream uint32, code h2.Code) []byte { return h2.AppendRSTStream(nil, stream, code) }

func goAway(last uint32) []byte { return h2.AppendGoAway(nil, last, h2.CodeNo, nil) }

func windowUpdate(stream, n uint32) []byte { return h2.AppendWindowUpdate(nil, stream, n) }

func ping(n uint64) []byte { return h2.AppendPing(nil, 0, pingData(n)) }

func pong(n uint64) []byte { return h2.AppendPing(nil, h2.FlagAck, pingData(n)) }

func pingData(n uint64) (b [8]byte) {
	binary.BigEndian.PutUint64(b[:], n)
	return b
}

func frame(t h2.Type, flags h2.Flags, stream uint32, payload string) []byte {
	return h2.AppendFrame(nil, t, flags, stream, []byte(payload))
}

// A sentFrame is a frame that the client has sent.
type sentFrame struct {
	kind    h2.Type
	flags   h2.Flags
	stream  uint32
	payload []byte
	end     int // how many bytes the client has sent, up to the end of the frame
}

func (f *sentFrame) has(flag h2.Flags) bool { return f.flags&flag != 0 }

func (f *sentFrame) uint32(at int) uint32 { return binary.BigEndian.Uint32(f.payload[at:]) }

// text returns, for example, "RST_STREAM 1 CANCEL".
func (f *sentFrame) text() string {
	s := f.kind.String()
	if f.stream != 0 {
		s += fmt.Sprint(" ", f.stream)
	}
	switch f.kind {
	case h2.TypeData:
		s += fmt.Sprint(" ", len(f.payload))
		fallthrough
	case h2.TypeHeaders:
		if f.has(h2.FlagEndStream) {
			s += " END_STREAM"
		}
	case h2.TypeRSTStream:
		s += " " + h2.Code(f.uint32(0)).String()
	case h2.TypeSettings:
		if f.has(h2.FlagAck) {
			s += " ACK"
		}
		for p := f.payload; len(p) > 0; p = p[6:] {
			s += fmt.Sprintf(" %d=%d", binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:]))
		}
	case h2.TypePing:
		if f.has(h2.FlagAck) {
			s += " ACK"
		}
		s += fmt.Sprint(" ", binary.BigEndian.Uint64(f.payload))
	case h2.TypeGoAway:
		s += fmt.Sprintf(" %d %v", f.uint32(0), h2.Code(f.uint32(4)))
	case h2.TypeWindowUpdate:
		s += fmt.Sprintf(" %d", f.uint32(0))
	}
	return s
}

// A strictServer takes what a client sends as a server would that accepts no
// deviation from RFC 9113. It is written without the code under test, but for HPACK.
type strictServer struct {
	t       testing.TB
	decoder *hpack.Decoder
	started bool // the preface has come
	rest    []byte
	sent    int               // bytes
	streams map[uint32]string // "open", "ended" or "reset"
	last    uint32            // the last stream that was opened
	inBlock []byte            // a block without its end; nil: there is none
	blocks  map[uint32]string // the fields of each
	away    bool              // GOAWAY has come
	data    map[uint32]int    // bytes of DATA on each stream
	allData int
}

func newStrictServer(t testing.TB) *strictServer {
	return &strictServer{
		t:       t,
		decoder: hpack.NewDecoder(4096, 1<<20),
		streams: make(map[uint32]string),
		blocks:  make(map[uint32]string),
		data:    make(map[uint32]int),
	}
}

// take takes what the client has written, and returns the frames that are whole.
func (s *strictServer) take(b []byte) (frames []sentFrame) {
	s.t.Helper()
	s.rest = append(s.rest, b...)
	if !s.started {
		if len(s.rest) < len(h2.Preface) {
			return nil
		}
		if !strings.HasPrefix(string(s.rest), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
			s.t.Fatalf("the client sent %.24q first, want the preface", s.rest)
		}
		s.advance(len(h2.Preface))
		s.started = true
	}
	for len(s.rest) >= 9 {
		size := int(s.rest[0])<<16 | int(s.rest[1])<<8 | int(s.rest[2])
		if size > 16384 {
			s.t.Fatalf("the client sent a frame of %d bytes, want at most 16384", size)
		}
		if len(s.rest) < 9+size {
			break
		}
		f := sentFrame{
			kind:    h2.Type(s.rest[3]),
			flags:   h2.Flags(s.rest[4]),
			stream:  binary.BigEndian.Uint32(s.rest[5:]),
			payload: slices.Clone(s.rest[9 : 9+size]),
		}
		s.advance(9 + size)
		f.end = s.sent
		s.check(&f)
		frames = append(frames, f)
	}
	return frames
}

func (s *strictServer) advance(n int) {
	s.rest = s.rest[n:]
	s.sent += n
}

func (s *strictServer) check(f *sentFrame) {
	s.t.Helper()
	unused := map[h2.Type]h2.Flags{
		h2.TypeData: ^h2.FlagEndStream, h2.TypeHeaders: ^(h2.FlagEndStream | h2.FlagEndHeaders), h2.TypeContinuation: ^h2.FlagEndHeaders,
		h2.TypeSettings: ^h2.FlagAck, h2.TypePing: ^h2.FlagAck, h2.TypeRSTStream: 0xff, h2.TypeGoAway: 0xff, h2.TypeWindowUpdate: 0xff,
	}
	size := map[h2.Type]int{h2.TypeRSTStream: 4, h2.TypePing: 8, h2.TypeGoAway: 8, h2.TypeWindowUpdate: 4}
	onStream := f.kind != h2.TypeSettings && f.kind != h2.TypePing && f.kind != h2.TypeGoAway
	want, sized := size[f.kind]
	mask, known := unused[f.kind]
	state := s.streams[f.stream]
	bad := ""
	switch {
	case !known:
		bad = "a type that a client need not send"
	case f.flags&mask != 0:
		bad = fmt.Sprintf("flags %#x", f.flags)
	case f.stream>>31 != 0:
		bad = "the reserved bit"
	case (f.stream != 0) != onStream && f.kind != h2.TypeWindowUpdate:
		bad = "a stream where there has to be none, or none"
	case sized && len(f.payload) != want:
		bad = fmt.Sprintf("%d bytes", len(f.payload))
	case s.away && f.kind == h2.TypeHeaders:
		bad = "GOAWAY before it"
	case (s.inBlock != nil) != (f.kind == h2.TypeContinuation):
		bad = "CONTINUATION out of place, or something else in the middle of a block"
	case f.kind == h2.TypeHeaders && (f.stream%2 == 0 || f.stream <= s.last):
		bad = fmt.Sprintf("a stream after %d", s.last)
	case f.kind == h2.TypeWindowUpdate && f.stream > s.last:
		bad = "a stream that is idle"
	case f.kind == h2.TypeData && state != "open":
		bad = "a stream that is " + state
	case f.kind == h2.TypeRSTStream && state != "open" && state != "ended":
		bad = "a stream that is " + state
	case f.kind == h2.TypeWindowUpdate && (f.uint32(0) == 0 || f.uint32(0)>>31 != 0):
		bad = "increment"
	}
	if bad != "" {
		s.t.Fatalf("the client sent %v of stream %d with %s", f.kind, f.stream, bad)
	}
	switch f.kind {
	case h2.TypeHeaders:
		s.last = f.stream
		s.streams[f.stream] = "open"
		s.inBlock = []byte{}
		fallthrough
	case h2.TypeContinuation:
		if s.inBlock = append(s.inBlock, f.payload...); f.has(h2.FlagEndHeaders) {
			s.blocks[f.stream] = s.decode(s.inBlock)
			s.inBlock = nil
		}
	case h2.TypeData:
		s.data[f.stream] += len(f.payload)
		s.allData += len(f.payload)
	case h2.TypeRSTStream:
		s.streams[f.stream] = "reset"
	case h2.TypeGoAway:
		s.away = true
	}
	if (f.kind == h2.TypeData || f.kind == h2.TypeHeaders) && f.has(h2.FlagEndStream) {
		s.streams[f.stream] = "ended"
	}
}

// decode returns the fields of a request, a line each.
func (s *strictServer) decode(block []byte) string {
	s.t.Helper()
	var fields strings.Builder
	err := s.decoder.Decode(block, func(name, value []byte) { fmt.Fprintf(&fields, "%s: %s\n", name, value) })
	if err != nil {
		s.t.Fatalf("the client sent a header block that cannot be decoded: %v", err)
	}
	return fields.String()
}

// codeOf returns the code of a connection error, or the error's text.
func codeOf(err error) string {
	switch e, ok := errors.AsType[*h2.ConnError](err); {
	case ok:
		return e.Code.String()
	case err == nil:
		return ""
	case err == io.EOF:
		return "EOF"
	}
	return err.Error()
}
