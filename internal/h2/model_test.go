package h2_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// A model says what a client has to do: which outcomes a request has, and which
// frames are sent, in which order. It is told what the test does with the client and
// what the server sends, and knows nothing of bytes, tables or locks.
type model struct {
	t       *testing.T
	c       *client
	encoder hpack.Encoder // of the server

	streams []*modelStream // all that were opened, in order
	next    uint32         // above it all streams are idle

	// What the server has sent, and the client has not read.
	unread  []byte
	effects []func() (code h2.Code) // of each frame; a code ends the connection

	outcomes []string // that the client has to report with what it does now
	frames   []string // that it has to send with the next Flush
	replies  int      // of these, what the server makes it send

	limit, serverLimit int
	initial, window    int64
	settled, acked     bool
	away               bool
	last               uint32 // of GOAWAY
	closed             bool
	ended              bool // nothing more is read
	overflowed         bool // by SETTINGS, of which a part was applied
	broken             bool // nothing more is written
	pings              uint64
	pinging            bool
	credit, empty      int
}

type modelStream struct {
	id      uint32
	tag     string
	state   streamState
	flushed bool   // HEADERS were written, or begun to be
	confirm uint64 // the PING whose answer shows that the server knows of the reset; 0: it is not sent yet

	size, sent int // of the body, and what of it was put into frames
	whole      bool
	written    bool // to the end, as far as the client knows
	window     int64

	status   int // 0: there is none yet
	length   int64
	body     []byte
	size1xx  int
	received int
}

type streamState int

const (
	streamActive    streamState = iota
	streamCancelled             // it has its outcome, and counts
	streamClosed
)

func newModel(t *testing.T) *model {
	m := &model{
		t:           t,
		c:           newUnsettled(t),
		next:        1,
		limit:       h2.MaxStreams,
		serverLimit: h2.DefaultStreams,
		initial:     65535,
		window:      65535,
	}
	m.c.flush()
	m.c.sent()
	return m
}

// wants notes a frame that the client has to send.
func (m *model) wants(format string, args ...any) {
	m.frames = append(m.frames, fmt.Sprintf(format, args...))
}

func (m *model) resolve(s *modelStream, kind h2.Kind, code h2.Code, whole bool) {
	o := h2.Outcome{Tag: s.tag, Kind: kind, Code: code}
	if kind == h2.Answered {
		o.Early = !m.sent(s) || m.away && s.id > m.last
		o.Response = &h2.Response{Status: s.status, Body: s.body, Whole: whole}
	}
	m.outcomes = append(m.outcomes, text(o))
}

// get returns a stream that was opened, or nil.
func (m *model) get(id uint32) *modelStream {
	for _, s := range m.streams {
		if s.id == id {
			return s
		}
	}
	return nil
}

func (m *model) isIdle(id uint32) bool {
	s := m.get(id)
	return id%2 == 0 || id >= m.next || s != nil && s.state == streamActive && !s.flushed
}

func (m *model) count(state streamState) (n int) {
	for _, s := range m.streams {
		if s.state == state {
			n++
		}
	}
	return n
}

func (m *model) room() int {
	if m.closed || m.away || !m.settled || m.window <= 0 {
		return 0
	}
	return max(0, min(m.limit, m.serverLimit)-m.count(streamActive)-m.count(streamCancelled))
}

// The client's side.

func (m *model) open(size int) {
	tag := strconv.Itoa(len(m.streams))
	id, err := m.c.Open(request(tag, strings.Repeat("x", size)))
	if err != nil || (id != 0) != (m.room() > 0) || id != 0 && (id < m.next || id%2 == 0) {
		m.t.Fatalf("Open: got stream %d, %v, want one from %d on: %t", id, err, m.next, m.room() > 0)
	}
	if id == 0 {
		return
	}
	s := &modelStream{id: id, tag: tag, size: size, window: m.initial}
	m.streams = append(m.streams, s)
	m.next = id + 2
	end := ""
	if size == 0 {
		end, s.whole = " END_STREAM", true
	}
	m.wants("HEADERS %d%s", id, end)
	m.send(s)
}

// send puts as much of a body into frames as the windows allow.
func (m *model) send(s *modelStream) {
	for s.sent < s.size {
		n := min(int64(s.size-s.sent), 16384, s.window, m.window)
		if n <= 0 {
			return
		}
		s.sent += int(n)
		s.window -= n
		m.window -= n
		end := ""
		if s.sent == s.size {
			end, s.whole = " END_STREAM", true
		}
		m.wants("DATA %d %d%s", s.id, n, end)
	}
}

// flush flushes, and has the write fail after room bytes unless that is negative.
func (m *model) flush(room int) {
	if !m.broken {
		for _, s := range m.streams {
			if s.state == streamActive && !s.whole {
				m.send(s)
			}
		}
		if m.credit >= h2.ConnWindow/2 {
			m.wants("WINDOW_UPDATE %d", m.credit)
			m.credit = 0
		}
	}
	if got, want := m.c.Pending(), len(m.frames) > 0; want && !got {
		m.t.Fatalf("Pending: got false, want true for %q", m.frames)
	}
	m.c.script.room = room
	err := m.c.Flush()
	m.c.script.room = -1
	got := m.c.sends.take(m.c.script.written)
	m.c.script.written = nil
	for i, f := range got {
		if i >= len(m.frames) || f.text() != m.frames[i] {
			m.t.Fatalf("frame %d of %q: got %q", i, m.frames, f.text())
		}
		s := m.get(f.stream)
		if (f.kind == h2.TypeHeaders || f.kind == h2.TypeData) && f.has(h2.FlagEndStream) {
			s.written = true
		}
		if path := ":path: /"; f.kind == h2.TypeHeaders && !strings.Contains(m.c.sends.blocks[f.stream], path+s.tag+"\n") {
			m.t.Fatalf("stream %d: got header %q, want the path of %s", f.stream, m.c.sends.blocks[f.stream], s.tag)
		}
	}
	switch {
	case m.broken && (err == nil || len(got) > 0):
		m.t.Fatalf("Flush after a failed one: got %v and %d frames, want an error", err, len(got))
	case m.broken:
		return
	case err == nil && len(got) < len(m.frames):
		m.t.Fatalf("the client did not send %q", m.frames[len(got):])
	case err != nil && room < 0:
		m.t.Fatalf("Flush: got %v, want nil", err)
	}
	for _, s := range m.streams {
		s.flushed = true
	}
	m.replies = 0
	m.frames = nil
	if err != nil {
		m.broken, m.closed = true, true
	}
}

func (m *model) ping() {
	m.c.Ping()
	m.startPing()
}

func (m *model) startPing() {
	if m.pinging {
		return
	}
	m.pinging = true
	m.pings++
	m.wants("PING %d", m.pings)
	for _, s := range m.streams {
		if s.state == streamCancelled && s.confirm == 0 {
			s.confirm = m.pings
		}
	}
}

func (m *model) cancel(id uint32) {
	o, ok := m.c.Cancel(id)
	s := m.get(id)
	if ok != (s != nil && s.state == streamActive) {
		m.t.Fatalf("Cancel of stream %d: got %t, want the opposite", id, ok)
	}
	if !ok {
		return
	}
	m.end(s, m.broken)
	m.compare("Cancel", []string{text(o)})
	m.reset(s, h2.CodeCancel)
}

// end resolves a request without a further word from the server.
func (m *model) end(s *modelStream, ended bool) {
	switch {
	case s.status != 0:
		m.resolve(s, h2.Answered, 0, false)
	case !s.whole, ended && !s.written:
		m.resolve(s, h2.Unprocessed, 0, false)
	default:
		m.resolve(s, h2.Lost, 0, false)
	}
}

// sent reports whether the server may have the whole request.
func (m *model) sent(s *modelStream) bool { return s.whole && (!m.broken || s.written) }

// reset resets a stream that has its outcome.
func (m *model) reset(s *modelStream, code h2.Code) {
	s.state = streamCancelled
	m.wants("RST_STREAM %d %v", s.id, code)
	m.startPing()
}

func (m *model) malformed(s *modelStream, code h2.Code) {
	kind := h2.Malformed
	if !m.sent(s) {
		kind = h2.Unprocessed
	}
	m.resolve(s, kind, 0, false)
	m.reset(s, code)
	m.replies++
}

func (m *model) close(code h2.Code) {
	m.c.Close(code)
	m.closeWith(code)
}

func (m *model) closeWith(code h2.Code) {
	if !m.closed {
		m.wants("GOAWAY 0 %v", code)
	}
	m.closed = true
}

// compare compares outcomes with those that are wanted, in any order.
func (m *model) compare(what string, got []string) {
	m.t.Helper()
	slices.Sort(got)
	slices.Sort(m.outcomes)
	if !slices.Equal(got, m.outcomes) {
		m.t.Fatalf("%s: got outcomes\n%q, want\n%q", what, got, m.outcomes)
	}
	m.outcomes = nil
}

// The server's side.

// server has the server send a frame, which has an effect when the client reads it.
func (m *model) server(frame []byte, effect func() h2.Code) {
	m.unread = append(m.unread, frame...)
	m.effects = append(m.effects, effect)
	if len(m.effects) >= 30 {
		m.read()
	}
}

// read has the client read what the server has sent.
func (m *model) read() {
	if m.ended {
		m.unread, m.effects = nil, nil
		return
	}
	if m.replies > 60 && !m.closed {
		m.flush(-1) // otherwise Read would wait
	}
	var want h2.Code
	for _, effect := range m.effects {
		if want = effect(); want != 0 {
			m.closeWith(want)
			m.ended = true
			break
		}
	}
	b := m.unread
	m.unread, m.effects = nil, nil
	m.c.script.reads = [][]byte{b}
	var got []string
	var err error
	for len(b) > 0 && len(m.c.script.reads) > 0 && err == nil {
		var o []h2.Outcome
		o, err = m.c.Read()
		got = append(got, texts(o)...)
	}
	m.c.script.reads = nil
	wantCode := ""
	if want != 0 {
		wantCode = want.String()
	}
	if codeOf(err) != wantCode {
		m.t.Fatalf("Read: got error %v, want %q", err, wantCode)
	}
	m.compare("Read", got)
}

func (m *model) unneeded() h2.Code { return 0 }

// closed says what a frame of a stream means that is not active, and frees the
// stream if that was the last frame. It is false if the stream is active.
func (m *model) dropped(id uint32, last bool) (code h2.Code, dropped bool) {
	if m.isIdle(id) {
		return h2.CodeProtocol, true
	}
	s := m.get(id)
	if s != nil && s.state == streamActive {
		return 0, false
	}
	if s != nil && last {
		s.state = streamClosed
	}
	return 0, true
}

// A modelBlock is a header block of a server.
type modelBlock struct {
	fields []string
	status int  // 0: there is none
	bad    bool // it is malformed in any section
	length int64
}

func (m *model) headers(id uint32, b modelBlock, end bool) {
	var flags h2.Flags
	if end {
		flags = h2.FlagEndStream
	}
	block := m.encoder.AppendBegin(nil)
	for nv := range slices.Chunk(b.fields, 2) {
		block = m.encoder.AppendField(block, nv[0], nv[1], hpack.Index)
	}
	m.server(h2.AppendHeaders(nil, flags, id, block, 16384), func() h2.Code {
		if id == 0 {
			return h2.CodeProtocol
		}
		if code, dropped := m.dropped(id, end); dropped {
			return code
		}
		s := m.get(id)
		switch {
		case b.bad || (b.status == 0) != (s.status != 0): // a section that does not belong here
			m.malformed(s, h2.CodeProtocol)
		case s.status != 0 && !end, b.status != 0 && b.status < 200 && end:
			m.malformed(s, h2.CodeProtocol)
		case s.status != 0:
			m.answered(s)
		case b.status < 200:
			if s.size1xx++; s.size1xx > h2.MaxInformational {
				m.malformed(s, h2.CodeEnhanceYourCalm)
			}
		default:
			s.status, s.length = b.status, b.length
			if end {
				m.answered(s)
			}
		}
		return 0
	})
}

func (m *model) answered(s *modelStream) {
	if s.length >= 0 && s.length != int64(len(s.body)) {
		m.malformed(s, h2.CodeProtocol)
		return
	}
	m.resolve(s, h2.Answered, 0, true)
	s.state = streamClosed
	if !s.whole {
		m.wants("RST_STREAM %d CANCEL", s.id)
		m.replies++
	}
}

func (m *model) data(id uint32, n, padding int, end bool) {
	var flags h2.Flags
	payload := strings.Repeat("y", n)
	if end {
		flags = h2.FlagEndStream
	}
	if padding > 0 {
		flags |= h2.FlagPadded
		payload = string([]byte{byte(padding - 1)}) + payload + strings.Repeat("\x00", padding-1)
	}
	m.server(data(id, flags, payload), func() h2.Code {
		if id == 0 {
			return h2.CodeProtocol
		}
		if m.credit += len(payload); m.credit > h2.ConnWindow {
			return h2.CodeFlowControl
		}
		if n == 0 && !end {
			if m.empty++; m.empty > h2.MaxEmpty {
				return h2.CodeEnhanceYourCalm
			}
		}
		if code, dropped := m.dropped(id, end); dropped {
			return code
		}
		s := m.get(id)
		s.received += len(payload)
		switch {
		case s.status == 0:
			m.malformed(s, h2.CodeProtocol)
		case s.received > h2.StreamWindow:
			m.malformed(s, h2.CodeFlowControl)
		default:
			s.body = append(s.body, strings.Repeat("y", n)...)
			switch {
			case end:
				m.answered(s)
			case s.received == h2.StreamWindow:
				m.resolve(s, h2.Answered, 0, false)
				m.reset(s, h2.CodeCancel)
				m.replies++
			}
		}
		return 0
	})
}

func (m *model) rstStream(id uint32, code h2.Code) {
	m.server(reset(id, code), func() h2.Code {
		if id == 0 {
			return h2.CodeProtocol
		}
		if code, dropped := m.dropped(id, true); dropped {
			return code
		}
		s := m.get(id)
		s.state = streamClosed
		switch {
		case s.status != 0:
			m.resolve(s, h2.Answered, 0, false)
		case !m.sent(s) || code == h2.CodeRefusedStream:
			m.resolve(s, h2.Unprocessed, 0, false)
		default:
			m.resolve(s, h2.Reset, code, false)
		}
		return 0
	})
}

func (m *model) goAway(last uint32) {
	m.server(goAway(last), func() h2.Code {
		if m.away && last > m.last {
			return h2.CodeProtocol
		}
		m.away, m.last = true, last
		for _, s := range m.streams {
			if s.id <= last || s.state != streamActive {
				continue
			}
			s.state = streamClosed
			if s.status != 0 {
				m.resolve(s, h2.Answered, 0, false)
			} else {
				m.resolve(s, h2.Unprocessed, 0, false)
			}
		}
		return 0
	})
}

func (m *model) settings(s h2.Setting, value uint32) {
	m.server(setting(s, value), func() h2.Code {
		switch s {
		case h2.SettingEnablePush:
			if value != 0 {
				return h2.CodeProtocol
			}
		case h2.SettingMaxConcurrentStreams:
			m.serverLimit = int(min(value, h2.MaxStreams))
		case h2.SettingInitialWindowSize:
			if value > 1<<31-1 {
				return h2.CodeFlowControl
			}
			for _, s := range m.streams {
				if s.window += int64(value) - m.initial; s.state == streamActive && s.window > 1<<31-1 {
					m.overflowed = true
					return h2.CodeFlowControl
				}
			}
			m.initial = int64(value)
		}
		m.settled = true
		m.reply("SETTINGS ACK")
		return 0
	})
}

// reply notes a frame that the server makes the client send. When the connection is
// closed, that is left out if there are too many.
func (m *model) reply(frame string) {
	if m.replies++; !m.closed || m.replies <= h2.MaxReplies {
		m.wants("%s", frame)
	}
}

func (m *model) settingsAck() {
	m.server(h2.AppendSettingsAck(nil), func() h2.Code {
		if !m.settled || m.acked {
			return h2.CodeProtocol
		}
		m.acked = true
		return 0
	})
}

func (m *model) windowUpdate(id, n uint32) {
	m.server(windowUpdate(id, n), func() h2.Code {
		if id == 0 {
			if m.window += int64(n); m.window > 1<<31-1 {
				return h2.CodeFlowControl
			}
			if n == 0 {
				return h2.CodeProtocol
			}
			return 0
		}
		if code, dropped := m.dropped(id, false); dropped {
			return code
		}
		s := m.get(id)
		switch s.window += int64(n); {
		case n == 0:
			m.malformed(s, h2.CodeProtocol)
		case s.window > 1<<31-1:
			m.malformed(s, h2.CodeFlowControl)
		}
		return 0
	})
}

func (m *model) serverPing(n uint64) {
	m.server(ping(n), func() h2.Code {
		m.reply(fmt.Sprint("PING ACK ", n))
		return 0
	})
}

func (m *model) pong(n uint64) {
	m.server(pong(n), func() h2.Code {
		if !m.pinging || n != m.pings {
			return 0
		}
		m.pinging = false
		more := false
		for _, s := range m.streams {
			switch {
			case s.state != streamCancelled:
			case s.confirm == n:
				s.state = streamClosed
			default:
				more = true
			}
		}
		if more {
			m.startPing()
		}
		return 0
	})
}

// A tape is the input of a fuzzer, as numbers.
type tape struct{ b []byte }

// next returns a number below n.
func (t *tape) next(n int) int {
	if len(t.b) == 0 {
		return 0
	}
	v := int(t.b[0])
	t.b = t.b[1:]
	return v % n
}

// rarely is true once in a while.
func (t *tape) rarely() bool { return t.next(256) == 77 }

// stream returns a stream for the server to send something of: most often one that
// was opened lately and written, seldom one that it cannot know of.
func (m *model) stream(t *tape) uint32 {
	n := t.next(256)
	known := slices.DeleteFunc(slices.Clone(m.streams), func(s *modelStream) bool { return !s.flushed })
	switch {
	case n == 255:
		return []uint32{0, 2, m.next, m.next + 2, m.next - 2, m.next - 4}[t.next(6)] & h2.MaxStream
	case len(known) == 0:
		return 0
	case n >= 224:
		return known[t.next(len(known))].id
	}
	return known[max(0, len(known)-1-n%8)].id
}

// play plays what a tape says, then ends the connection, and checks that each request
// has its outcome.
func play(t *testing.T, input []byte) {
	m := newModel(t)
	in := &tape{input}
	m.settings(h2.SettingMaxConcurrentStreams, []uint32{1, 2, 5, 100, 1000, 1 << 31}[in.next(6)])
	m.read()
	m.flush(-1)
	for len(in.b) > 0 {
		if m.step(in); m.overflowed {
			break
		}
		if got, want := m.c.Room(), m.room(); got != want {
			t.Fatalf("got room %d, want %d", got, want)
		}
		if got, want := m.c.Active(), m.count(streamActive); got != want {
			t.Fatalf("got %d active, want %d", got, want)
		}
		if got := m.c.Pinging(); got != m.pinging {
			t.Fatalf("got pinging %t, want %t", got, m.pinging)
		}
		if _, slots, listed := m.c.Memory(); slots > 2*h2.MaxStreams || listed > 3*max(slots, h2.MinTable) {
			t.Fatalf("got %d slots, %d streams in lists", slots, listed)
		}
	}
	if m.overflowed {
		// What was held back may have been sent, or not: only the number is certain.
		if got, want := len(m.c.Rest()), m.count(streamActive); got != want {
			t.Fatalf("Rest: got %d outcomes, want %d", got, want)
		}
		return
	}
	m.read()
	if !m.ended {
		m.c.script.readErr = io.EOF
		if outcomes, err := m.c.Read(); err != io.EOF || len(outcomes) > 0 {
			t.Fatalf("Read at the end: got %q, %v, want EOF", texts(outcomes), err)
		}
	}
	for _, s := range m.streams {
		if s.state == streamActive {
			m.end(s, true)
		}
	}
	m.compare("Rest", texts(m.c.Rest()))
	if len(m.c.Rest()) > 0 || m.c.Active() != 0 {
		t.Fatalf("after Rest: got %d active, want none", m.c.Active())
	}
}

// step does one thing.
func (m *model) step(in *tape) {
	end := func() bool { return in.next(2) == 0 }
	op := in.next(32)
	if op >= 13 && !slices.ContainsFunc(m.streams, func(s *modelStream) bool { return s.flushed }) {
		m.open(2) // so that there is something to be answered
		m.flush(-1)
		return
	}
	switch op {
	case 0:
		for range in.next(8) * in.next(8) {
			m.open(2)
		}
	case 1, 2:
		m.open([]int{0, 1, 2, 5, 100, 1000, 20_000, 70_000}[in.next(8)])
	case 3, 4:
		m.flush(-1)
	case 5:
		if in.next(8) == 0 {
			m.flush(in.next(256) * (1 + in.next(3)))
		}
	case 6, 7:
		m.cancel(max(0, m.next-2*uint32(in.next(16))))
	case 8, 9, 10:
		m.read()
	case 11:
		m.ping()
	case 12:
		if in.rarely() {
			m.close(h2.Code(in.next(20)))
		}
	case 13, 14:
		m.headers(m.stream(in), modelBlock{[]string{":status", "200", "apns-id", strconv.Itoa(in.next(4))}, 200, false, -1}, true)
	case 15:
		m.headers(m.stream(in), modelBlock{[]string{":status", "400", "date", strconv.Itoa(in.next(4))}, 400, false, -1}, false)
	case 16:
		n := in.next(4)
		m.headers(m.stream(in), modelBlock{[]string{":status", "500", "content-length", strconv.Itoa(n)}, 500, false, int64(n)}, end())
	case 17:
		m.headers(m.stream(in), modelBlock{[]string{":status", "103", "link", strconv.Itoa(in.next(4))}, 103, false, -1}, in.next(16) == 0)
	case 18:
		m.headers(m.stream(in), modelBlock{[]string{"x-sum", strconv.Itoa(in.next(4))}, 0, false, -1}, in.next(8) != 0)
	case 19:
		m.headers(m.stream(in), []modelBlock{
			{[]string{":status", "200", "A", "b"}, 200, true, -1},
			{[]string{":status", "20"}, 20, true, -1},
			{[]string{":status", "101"}, 101, true, -1},
			{[]string{":status", "200", "connection", "close"}, 200, true, -1},
			{[]string{"x", "y\n"}, 0, true, -1},
			{[]string{":status", "200", ":status", "200"}, 200, true, -1},
		}[in.next(6)], end())
	case 20, 21:
		n := []int{0, 1, 2, 3, 100, 5000, 16000, 16128}[in.next(8)]
		padding := 0
		if in.next(4) == 0 {
			padding = in.next(256)
		}
		m.data(m.stream(in), n, padding, end())
	case 22:
		m.rstStream(m.stream(in), h2.Code(in.next(16)))
	case 23:
		if in.next(16) == 0 {
			m.goAway([]uint32{0, m.next - 2, m.next, m.next - 4, h2.MaxStream, m.stream(in)}[in.next(6)] & h2.MaxStream)
		}
	case 24:
		m.settings(h2.SettingInitialWindowSize, []uint32{0, 1, 2, 3, 10, 1000, 65535, 1 << 20}[in.next(8)])
	case 25:
		m.settings(h2.SettingMaxConcurrentStreams, []uint32{0, 1, 2, 3, 10, 1000, 1<<32 - 1}[in.next(7)])
	case 26:
		m.settings(h2.SettingHeaderTableSize, []uint32{0, 1, 64, 100, 4095, 4096, 4097, 1<<32 - 1}[in.next(8)])
	case 27:
		m.windowUpdate(m.stream(in), []uint32{1, 2, 3, 1000, 65535, 1 << 20, 1<<31 - 1, 0}[in.next(8)])
	case 28:
		n := []uint32{1, 2, 1000, 65535, 1 << 20}[in.next(5)]
		if in.rarely() {
			n = []uint32{0, 1<<31 - 1}[in.next(2)]
		}
		m.windowUpdate(0, n)
	case 29:
		m.serverPing(uint64(in.next(4)))
	case 30:
		m.pong(m.pings - uint64(in.next(8)/7))
	case 31:
		m.oddity(in)
	}
}

// oddity has the server send what is of no use, or rarely what ends the connection.
func (m *model) oddity(in *tape) {
	protocol := func() h2.Code { return h2.CodeProtocol }
	switch in.next(8) {
	case 0:
		m.server(frame(h2.Type(10+in.next(200)), h2.Flags(in.next(256)), m.stream(in), "x"), m.unneeded)
	case 1:
		m.server(frame(h2.TypePriority, 0, 1+2*uint32(in.next(9)), "\x00\x00\x00\x02\x00"), m.unneeded)
	case 2:
		m.settings(h2.Setting(7+in.next(200)), 1<<32-1)
	case 3:
		if in.rarely() {
			m.settings([]h2.Setting{h2.SettingEnablePush, h2.SettingInitialWindowSize}[in.next(2)], []uint32{1 << 31, 1<<31 - 1}[in.next(2)])
		}
		m.settings(h2.SettingEnablePush, 0)
	case 4:
		if !m.acked || in.rarely() {
			m.settingsAck()
		}
	case 5:
		if in.rarely() {
			m.server(frame(h2.TypePushPromise, h2.FlagEndHeaders, 1, "\x00\x00\x00\x02\x82"), protocol)
		}
	case 6:
		if in.rarely() {
			m.server(frame(h2.TypeContinuation, h2.FlagEndHeaders, 1, ""), protocol)
		}
	case 7:
		// PRIORITY of a wrong size is an error of its stream.
		id := m.stream(in)
		m.server(frame(h2.TypePriority, 0, id, "1234"), func() h2.Code {
			if id == 0 {
				return h2.CodeProtocol
			}
			code, dropped := m.dropped(id, false)
			switch {
			case dropped && code != 0:
				return h2.CodeFrameSize
			case !dropped:
				m.malformed(m.get(id), h2.CodeFrameSize)
			}
			return 0
		})
	}
}

// Frames of every type in any order, and a client that does anything meanwhile.
func TestModelAtRandom(t *testing.T) {
	n := uint64(1000)
	if testing.Short() {
		n = 100
	}
	seed := uint64(0)
	defer func() {
		if t.Failed() {
			t.Logf("with seed %d", seed)
		}
	}()
	for ; seed < n; seed++ {
		play(t, randomTape(seed))
	}
}

func randomTape(seed uint64) []byte {
	rnd := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 20+rnd.IntN(1000))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}
