package apnstest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// An http2Conn is the server's end of an HTTP/2 connection. It answers whatever
// RFC 9113 calls an error with that error.
//
// One goroutine reads, decides and answers. It does not read while its writes
// block, so a client that sends and never reads is slowed down, and cannot make
// the server hold replies in memory. Late answers come from other goroutines.
type http2Conn struct {
	server   *Server
	conn     *conn
	settings HTTP2Settings // with their defaults
	late     sync.WaitGroup

	// Of the goroutine that reads:
	r       *h2.Reader
	decoder *hpack.Decoder
	auth    authState
	begun   bool // the client's first SETTINGS have come

	tableSize  int  // of the client's dynamic table in bytes, as the client has it
	tableAcked bool // the client has acknowledged the HeaderTableSize

	mu        durableMutex // protects following
	w         *bufio.Writer
	encoder   hpack.Encoder
	streams   map[uint32]*stream // open or half-closed: what the stream limit counts
	closed    closedStreams
	last      uint32 // the last stream that was opened
	highest   uint32 // the last stream that the client has begun, ignored ones included
	going     bool   // a GOAWAY was sent
	after     uint32 // its last stream; those after it are ignored
	announced announcements
	in        inflow // of the connection
	out       outflow
	blocked   []*stream // in order; their answers wait for a window
}

// A durableMutex is a mutex that is held while something is written, which may
// take long. In a bubble of testing/synctest the time goes on while somebody waits
// for it.
type durableMutex chan struct{}

func (m durableMutex) Lock()   { m <- struct{}{} }
func (m durableMutex) Unlock() { <-m }

// serveHTTP2 serves the HTTP/2 provider API on a connection.
func (s *Server) serveHTTP2(c *conn) {
	if c.tls.ConnectionState().NegotiatedProtocol != "h2" {
		return // "HTTP/2 only"
	}
	settings := s.HTTP2.withDefaults()
	h := &http2Conn{
		server:   s,
		conn:     c,
		settings: settings,
		r:        h2.NewReader(c.tls),
		// Until it acknowledges a smaller one, the client may use the default size.
		decoder:   hpack.NewDecoder(max(settings.HeaderTableSize, defaultHeaderTableSize), settings.MaxHeaderListSize),
		tableSize: defaultHeaderTableSize,
		auth:      newAuthState(s, c.tls.ConnectionState()),
		mu:        make(durableMutex, 1),
		w:         bufio.NewWriterSize(c.tls, 16<<10),
		streams:   make(map[uint32]*stream),
		announced: newAnnouncements(),
		out:       newOutflow(),
	}
	defer h.stopTimers()
	h.mu.Lock()
	s.setHTTP2(h, true)
	defer s.setHTTP2(h, false)
	h.beginLocked()
	h.w.Flush()
	h.mu.Unlock()
	if err := s.onConnect(c, apns.ProviderPort); judge(err, 0).ends {
		h.turnAway(err)
		return
	}
	err := h.read()
	if e, ok := errors.AsType[*h2.ConnError](err); ok {
		h.mu.Lock()
		h.goAwayLocked(h.lastTakenLocked(), e.Code, []byte(e.Text))
		h.mu.Unlock()
	} else if err != nil {
		c.tls.Close()
		return
	}
	s.finish(c, Fault{}, nil, h.discard)
}

// turnAway ends a connection that OnConnect does not like.
func (h *http2Conn) turnAway(err error) {
	v := judge(err, 0)
	var words []byte
	reason := v.fault.Reason
	if v.said != nil {
		reason = toReason(v.said)
	}
	if v.said != nil || v.fault.End == EndGoAway || v.fault.End == EndGoAwayUnprocessed {
		words = h2.AppendGoAway(nil, 0, h2.CodeNo, reasonJSON(reason, time.Time{}))
	}
	h.server.finish(h.conn, v.fault, words, h.discard)
}

func (h *http2Conn) discard() { io.Copy(io.Discard, h.conn.tls) }

// read reads frames. It returns nil when a GOAWAY was sent and all streams before it
// are answered, and otherwise the error that ends the connection.
func (h *http2Conn) read() error {
	if err := h.readPreface(); err != nil {
		return err
	}
	for {
		f, ok, err := h.r.Next()
		switch e, isStream := errors.AsType[*h2.StreamError](err); {
		case isStream:
			err = h.streamError(e)
		case err == nil && ok:
			err = h.handle(&f)
		case err == nil:
			err = h.fill()
		}
		if err != nil {
			return err
		}
		if h.drained() {
			return nil
		}
	}
}

func (h *http2Conn) readPreface() error {
	for {
		got := string(h.r.Unread())
		switch {
		case strings.HasPrefix(got, h2.Preface):
			h.r.Discard(len(h2.Preface))
			return nil
		case !strings.HasPrefix(h2.Preface, got):
			return connError(h2.CodeProtocol, "no HTTP/2 preface")
		}
		if err := h.fill(); err != nil {
			return err
		}
	}
}

// fill reads once from the connection. It sends what was written before it waits.
func (h *http2Conn) fill() error {
	h.mu.Lock()
	h.w.Flush()
	h.mu.Unlock()
	return h.r.Fill()
}

func (h *http2Conn) handle(f *h2.Frame) error {
	if !h.begun && (f.Type != h2.TypeSettings || f.Has(h2.FlagAck)) {
		return connError(h2.CodeProtocol, "the first frame is %v, expected SETTINGS", f.Type)
	}
	h.begun = true
	switch f.Type {
	case h2.TypeHeaders:
		return h.headers(f)
	case h2.TypeData:
		return h.data(f)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch f.Type {
	case h2.TypeSettings:
		return h.clientSettingsLocked(f)
	case h2.TypePing:
		if !f.Has(h2.FlagAck) {
			h.writeLocked(h2.AppendPing(h.bufferLocked(), h2.FlagAck, [8]byte(f.Payload)))
		}
	case h2.TypeWindowUpdate:
		return h.windowUpdateLocked(f)
	case h2.TypeRSTStream:
		if h.idleLocked(f.Stream) {
			return connError(h2.CodeProtocol, "RST_STREAM of stream %d, which is idle", f.Stream)
		}
		if st := h.streams[f.Stream]; st != nil {
			h.forgetLocked(st)
		}
	case h2.TypePushPromise:
		return connError(h2.CodeProtocol, "PUSH_PROMISE from a client")
	}
	return nil // PRIORITY and GOAWAY change nothing; unknown types must be ignored
}

// clientSettingsLocked takes the client's SETTINGS, or its acknowledgement of ours.
func (h *http2Conn) clientSettingsLocked(f *h2.Frame) error {
	if f.Has(h2.FlagAck) {
		if !h.announced.ack() {
			return connError(h2.CodeProtocol, "acknowledgement of SETTINGS that were not sent")
		}
		h.tableAcked = true // the first SETTINGS had it
		return nil
	}
	err := f.Settings(func(s h2.Setting, value uint32) error {
		switch s {
		case h2.SettingHeaderTableSize:
			h.encoder.SetMaxTableSize(value)
		case h2.SettingInitialWindowSize:
			return h.setInitialWindowLocked(int(value))
		case h2.SettingMaxFrameSize:
			h.out.maxFrame = int(value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.writeLocked(h2.AppendSettingsAck(h.bufferLocked()))
	h.unblockLocked()
	return nil
}

// bufferLocked and writeLocked write frames:
// h.writeLocked(h2.AppendPing(h.bufferLocked(), ...)). An error is ignored, since
// reading fails then too.
func (h *http2Conn) bufferLocked() []byte { return h.w.AvailableBuffer() }
func (h *http2Conn) writeLocked(b []byte) { h.w.Write(b) }

func connError(code h2.Code, format string, args ...any) error {
	return &h2.ConnError{Code: code, Text: fmt.Sprintf(format, args...)}
}
