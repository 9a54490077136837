package h2_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// A history is what happens to a client, and what becomes of its requests.
type history struct {
	name string
	do   func(c *client)
	want string // the outcomes, in the order in which they become known
}

// run runs a history, and ends the connection where the history has not.
func (h *history) run(t *testing.T) {
	t.Helper()
	c := newClient(t)
	h.do(c)
	c.end(io.EOF)
	if got := strings.Join(c.log, "; "); got != h.want {
		t.Errorf("%s: got outcomes\n%q, want\n%q", h.name, got, h.want)
	}
	if rest := c.Rest(); rest != nil || c.Active() != 0 {
		t.Errorf("%s: got %d more outcomes and %d active, want none", h.name, len(rest), c.Active())
	}
}

// written opens a, b and c on the streams 1, 3 and 5, and writes them.
func (c *client) written() *client {
	c.t.Helper()
	c.open("a", "b", "c")
	c.flush()
	return c
}

// heldBack opens a, b and c of 5 bytes each, of which 3 are written.
func (c *client) heldBack() *client {
	c.t.Helper()
	c.receive(setting(h2.SettingInitialWindowSize, 3))
	for _, tag := range []string{"a", "b", "c"} {
		c.openBody(tag, "12345")
	}
	c.flush()
	return c
}

func TestOutcomes(t *testing.T) {
	const refused = h2.CodeRefusedStream
	informational := func(stream uint32) []byte { return headers(stream, 0, ":status", "103") }
	brokenAfter := func(n int) func(c *client) { // three requests of which n bytes are written
		return func(c *client) {
			c.open("a", "b", "c")
			c.script.room = n
			if err := c.Flush(); err != errWrite {
				c.t.Errorf("Flush: got %v, want %v", err, errWrite)
			}
		}
	}
	for _, h := range []history{
		// GOAWAY: what is above its last stream was not processed.
		{"GOAWAY 0", func(c *client) { c.written().receive(goAway(0)) }, "a unprocessed; b unprocessed; c unprocessed"},
		{"GOAWAY below", func(c *client) { c.written().receive(goAway(1)) }, "b unprocessed; c unprocessed; a lost"},
		{"GOAWAY with an even number", func(c *client) { c.written().receive(goAway(2)) }, "b unprocessed; c unprocessed; a lost"},
		{"GOAWAY in the middle", func(c *client) { c.written().receive(goAway(3)) }, "c unprocessed; a lost; b lost"},
		{"GOAWAY at what was written", func(c *client) { c.written().receive(goAway(5)) }, "a lost; b lost; c lost"},
		{"GOAWAY above what was written", func(c *client) { c.written().receive(goAway(7)) }, "a lost; b lost; c lost"},
		{"GOAWAY 2^31-1", func(c *client) { c.written().receive(goAway(h2.MaxStream)) }, "a lost; b lost; c lost"},
		{"GOAWAY 2^31-1, and all answered", func(c *client) {
			c.written().receive(goAway(h2.MaxStream))
			c.receive(answer(3, "200"), answer(1, "200"), answer(5, "200"))
		}, "b answered 200; a answered 200; c answered 200"},
		{"GOAWAY with an error", func(c *client) { c.written().receive(h2.AppendGoAway(nil, 3, h2.CodeInternal, []byte("oops"))) }, "c unprocessed; a lost; b lost"},
		{"GOAWAY in lower steps", func(c *client) {
			c.written().receive(goAway(h2.MaxStream), goAway(5))
			for last := uint32(4); last > 0; last-- {
				c.receive(goAway(last))
			}
			c.receive(goAway(0))
		}, "c unprocessed; b unprocessed; a unprocessed"},
		{"GOAWAY twice", func(c *client) { c.written().receive(goAway(3), goAway(3)) }, "c unprocessed; a lost; b lost"},
		{"a higher GOAWAY", func(c *client) { c.written().receiveError("PROTOCOL_ERROR", goAway(1), goAway(3)) }, "b unprocessed; c unprocessed; a lost"},
		{"a higher GOAWAY after 0", func(c *client) { c.written().receiveError("PROTOCOL_ERROR", goAway(0), goAway(h2.MaxStream)) }, "a unprocessed; b unprocessed; c unprocessed"},
		{"an answer before GOAWAY", func(c *client) { c.written().receive(answer(3, "200"), goAway(1)) }, "b answered 200; c unprocessed; a lost"},
		{"an answer before GOAWAY 0", func(c *client) { c.written().receive(answer(1, "200"), goAway(0)) }, "a answered 200; b unprocessed; c unprocessed"},
		{"an answer after GOAWAY", func(c *client) { c.written().receive(goAway(1), answer(1, "200")) }, "b unprocessed; c unprocessed; a answered 200"},
		{"an answer above GOAWAY, after it", func(c *client) { c.written().receive(goAway(1), answer(3, "200")) }, "b unprocessed; c unprocessed; a lost"},
		{"RST_STREAM above GOAWAY, after it", func(c *client) { c.written().receive(goAway(1), reset(3, 8)) }, "b unprocessed; c unprocessed; a lost"},
		{"a status above GOAWAY", func(c *client) { c.written().receive(begin(3, "400"), data(3, 0, "w"), goAway(1)) }, `b answered 400 "w" cut early; c unprocessed; a lost`},
		{"a status below GOAWAY", func(c *client) { c.written().receive(begin(1, "400"), data(1, 0, "w"), goAway(1)) }, `b unprocessed; c unprocessed; a answered 400 "w" cut`},
		{"the end of an answer after GOAWAY", func(c *client) { c.written().receive(begin(1, "400"), goAway(1), data(1, h2.FlagEndStream, "w")) }, `b unprocessed; c unprocessed; a answered 400 "w"`},
		{"1xx above GOAWAY", func(c *client) { c.written().receive(informational(3), goAway(1)) }, "b unprocessed; c unprocessed; a lost"},
		{"GOAWAY and nothing open", func(c *client) { c.receive(goAway(0)) }, ""},
		{"GOAWAY 0 and what is not flushed", func(c *client) { c.open("a"); c.receive(goAway(0)); c.flush() }, "a unprocessed"},
		{"GOAWAY 2^31-1 and what is not flushed", func(c *client) { c.open("a"); c.receive(goAway(h2.MaxStream)) }, "a unprocessed"},
		{"GOAWAY 2^31-1 and what is flushed then", func(c *client) {
			c.open("a")
			c.receive(goAway(h2.MaxStream))
			c.flush()
			c.receive(answer(1, "200"))
		}, "a answered 200"},
		{"GOAWAY and DATA held back", func(c *client) {
			c.heldBack().receive(goAway(3))
			c.receive(windowUpdate(1, 2))
			c.flush() // a is whole, b is not
		}, "c unprocessed; a lost; b unprocessed"},
		{"GOAWAY and DATA sent after it", func(c *client) {
			c.heldBack().receive(goAway(3), windowUpdate(3, 9), windowUpdate(5, 9))
			c.flush()
			c.receive(answer(3, "200"))
		}, "c unprocessed; b answered 200; a unprocessed"},
		{"GOAWAY after Cancel", func(c *client) { c.written().cancel(3); c.receive(goAway(1)) }, "b lost; c unprocessed; a lost"},
		{"Cancel after GOAWAY", func(c *client) { c.written().receive(goAway(1)); c.cancel(3); c.cancel(1) }, "b unprocessed; c unprocessed; a lost"},

		// RST_STREAM.
		{"REFUSED_STREAM", func(c *client) { c.written().receive(reset(3, refused)) }, "b unprocessed; a lost; c lost"},
		{"REFUSED_STREAM after 1xx", func(c *client) { c.written().receive(informational(3), reset(3, refused)) }, "b unprocessed; a lost; c lost"},
		{"REFUSED_STREAM after a status", func(c *client) { c.written().receive(begin(3, "200"), reset(3, refused)) }, "b answered 200 cut; a lost; c lost"},
		{"RST_STREAM with every other code", func(c *client) {
			c.written().receive(reset(3, h2.CodeNo), reset(1, h2.CodeStreamClosed), reset(5, h2.CodeHTTP11Required))
		}, "b reset NO_ERROR; a reset STREAM_CLOSED; c reset HTTP_1_1_REQUIRED"},
		{"RST_STREAM after a status", func(c *client) { c.written().receive(begin(3, "500"), data(3, 0, "x"), reset(3, h2.CodeInternal)) }, `b answered 500 "x" cut; a lost; c lost`},
		{"RST_STREAM after an answer", func(c *client) { c.written().receive(answer(3, "500"), reset(3, refused)) }, "b answered 500; a lost; c lost"},
		{"RST_STREAM of a request held back", func(c *client) { c.heldBack().receive(reset(1, h2.CodeCancel), reset(3, refused), windowUpdate(1, 9)) }, "a unprocessed; b unprocessed; c unprocessed"},
		{"RST_STREAM of a request held back, with a status", func(c *client) { c.heldBack().receive(begin(1, "413"), reset(1, h2.CodeNo)) }, "a answered 413 cut early; b unprocessed; c unprocessed"},
		{"an early answer", func(c *client) { c.heldBack().receive(answer(1, "413")) }, "a answered 413 early; b unprocessed; c unprocessed"},

		// The connection ends.
		{"the end, nothing flushed", func(c *client) { c.open("a", "b") }, "a unprocessed; b unprocessed"},
		{"the end, all flushed", func(c *client) { c.written() }, "a lost; b lost; c lost"},
		{"the end, one not flushed", func(c *client) { c.written().open("d") }, "a lost; b lost; c lost; d unprocessed"},
		{"the end, DATA held back", func(c *client) { c.heldBack() }, "a unprocessed; b unprocessed; c unprocessed"},
		{"the end, DATA with a window and not flushed", func(c *client) { c.heldBack().receive(windowUpdate(1, 9)) }, "a unprocessed; b unprocessed; c unprocessed"},
		{"the end, DATA with a window and flushed", func(c *client) { c.heldBack().receive(windowUpdate(1, 9)); c.flush() }, "a lost; b unprocessed; c unprocessed"},
		{"the end after a status", func(c *client) { c.written().receive(begin(3, "410"), data(3, 0, "x")) }, `a lost; b answered 410 "x" cut; c lost`},
		{"the end after 1xx", func(c *client) { c.written().receive(informational(3)) }, "a lost; b lost; c lost"},
		{"the end after an answer", func(c *client) { c.written().receive(answer(3, "200")) }, "b answered 200; a lost; c lost"},
		{"the end after Close", func(c *client) { c.written().Close(h2.CodeNo); c.flush() }, "a lost; b lost; c lost"},
		{"the end after Close, not flushed", func(c *client) { c.open("a"); c.Close(h2.CodeNo) }, "a unprocessed"},
		{"an error of the server", func(c *client) {
			c.written().receiveError("PROTOCOL_ERROR", answer(1, "200"), answer(2, "200"), answer(3, "200"))
		}, "a answered 200; b lost; c lost"},

		// A write fails.
		{"a write fails at its beginning", brokenAfter(0), "a unprocessed; b unprocessed; c unprocessed"},
		{"a write fails, and an answer comes", func(c *client) {
			brokenAfter(40)(c)
			c.receive(answer(1, "200"))
		}, "a answered 200; b unprocessed; c unprocessed"},
		{"a write fails, and GOAWAY comes", func(c *client) {
			brokenAfter(40)(c)
			c.receive(goAway(0))
		}, "a unprocessed; b unprocessed; c unprocessed"},
		{"a write fails, and REFUSED_STREAM comes", func(c *client) {
			brokenAfter(40)(c)
			c.receive(reset(1, refused))
		}, "a unprocessed; b unprocessed; c unprocessed"},
		{"a second write fails", func(c *client) {
			c.written().open("d")
			c.script.room = 0
			c.Flush()
		}, "a lost; b lost; c lost; d unprocessed"},
		{"a write is short without an error", func(c *client) {
			c.open("a", "b")
			c.script.room, c.script.fail = 10, nil
			if err := c.Flush(); err != io.ErrShortWrite {
				c.t.Errorf("Flush: got %v, want %v", err, io.ErrShortWrite)
			}
		}, "a unprocessed; b unprocessed"},
		{"Flush after a write has failed", func(c *client) {
			c.open("a")
			c.script.room = 0
			c.Flush()
			c.script.room = -1
			if err := c.Flush(); err != errWrite {
				c.t.Errorf("second Flush: got %v, want %v again", err, errWrite)
			}
		}, "a unprocessed"},

		// Cancel.
		{"Cancel, not flushed", func(c *client) { c.open("a"); c.cancel(1); c.flush() }, "a lost"},
		{"Cancel, flushed", func(c *client) { c.written().cancel(3) }, "b lost; a lost; c lost"},
		{"Cancel, DATA held back", func(c *client) { c.heldBack().cancel(3) }, "b unprocessed; a unprocessed; c unprocessed"},
		{"Cancel, DATA with a window and not flushed", func(c *client) { c.heldBack().receive(windowUpdate(3, 9)); c.cancel(3); c.flush() }, "b unprocessed; a unprocessed; c unprocessed"},
		{"Cancel, DATA with a window and flushed", func(c *client) { c.heldBack().receive(windowUpdate(3, 9)); c.flush(); c.cancel(3) }, "b lost; a unprocessed; c unprocessed"},
		{"Cancel after a status", func(c *client) { c.written().receive(begin(3, "410"), data(3, 0, "x")); c.cancel(3) }, `b answered 410 "x" cut; a lost; c lost`},
		{"Cancel after 1xx", func(c *client) { c.written().receive(informational(3)); c.cancel(3) }, "b lost; a lost; c lost"},
		{"Cancel after an answer", func(c *client) { c.written().receive(answer(3, "200")); c.wantNone(3) }, "b answered 200; a lost; c lost"},
		{"Cancel after RST_STREAM", func(c *client) { c.written().receive(reset(3, refused)); c.wantNone(3) }, "b unprocessed; a lost; c lost"},
		{"Cancel after a malformed answer", func(c *client) { c.written().receive(answer(3, "20")); c.wantNone(3) }, "b malformed; a lost; c lost"},
		{"Cancel twice", func(c *client) {
			c.written().cancel(3)
			c.wantNone(3)
			c.flush()
			c.wantNone(3)
			c.receive(pong(1))
			c.wantNone(3)
		}, "b lost; a lost; c lost"},
		{"Cancel of what was never opened", func(c *client) {
			c.wantNone(0)
			c.wantNone(1)
			c.written().wantNone(7)
			c.wantNone(0)
			c.wantNone(2)
			c.wantNone(h2.MaxStream)
		}, "a lost; b lost; c lost"},
		{"Cancel, and an answer comes", func(c *client) {
			c.written().cancel(3)
			c.receive(answer(3, "200"), answer(1, "200"))
			c.wantNone(0) // whose slot of the table is free now
		}, "b lost; a answered 200; c lost"},
		{"Cancel, and REFUSED_STREAM comes", func(c *client) { c.written().cancel(3); c.receive(reset(3, refused)) }, "b lost; a lost; c lost"},
		{"Cancel, and the rest of a body comes", func(c *client) {
			c.written().receive(begin(3, "200"))
			c.cancel(3)
			c.receive(data(3, 0, "x"), data(3, h2.FlagEndStream, "y"))
		}, "b answered 200 cut; a lost; c lost"},
		{"Cancel after a write has failed", func(c *client) { brokenAfter(10)(c); c.cancel(3) }, "b unprocessed; a unprocessed; c unprocessed"},
		{"Cancel of what was written before a write failed", func(c *client) {
			c.written().open("d")
			c.script.room = 0
			c.Flush()
			c.cancel(1)
			c.cancel(7)
		}, "a lost; d unprocessed; b lost; c lost"},
		{"Cancel after Rest", func(c *client) {
			c.written().end(io.EOF)
			c.wantNone(1)
		}, "a lost; b lost; c lost"},
	} {
		h.run(t)
	}
}

func (c *client) wantNone(stream uint32) {
	c.t.Helper()
	if o, ok := c.Cancel(stream); ok || o.Tag != nil {
		c.t.Errorf("Cancel of stream %d: got %s, want none", stream, text(o))
	}
}

// receiveError has the client read frames, and expects a connection error.
func (c *client) receiveError(code string, frames ...[]byte) {
	c.t.Helper()
	if _, err := c.read(0, frames...); codeOf(err) != code {
		c.t.Errorf("Read: got error %v, want %s", err, code)
	}
}

// A write can end at every byte. The server can have those requests of which it has
// the last byte, and no others.
func TestWriteCutAtEveryByte(t *testing.T) {
	batch := func(c *client) {
		c.receive(setting(h2.SettingInitialWindowSize, 16400))
		c.flush()
		c.sent()
		c.open("a")
		c.openBody("b", "")                         // HEADERS alone
		c.openBody("c", strings.Repeat("x", 300))   // one DATA frame
		c.openBody("d", strings.Repeat("x", 16390)) // two DATA frames
		c.openBody("e", strings.Repeat("x", 16401)) // a part is held back
		c.Ping()
	}
	c := newClient(t)
	batch(c)
	c.flush()
	frames := c.sends.take(c.script.written)
	size := len(c.script.written)
	start := c.sends.sent - size
	ends := make(map[uint32]int)
	for _, f := range frames {
		if (f.kind == h2.TypeData || f.kind == h2.TypeHeaders) && f.has(h2.FlagEndStream) {
			ends[f.stream] = f.end - start
		}
	}
	if len(ends) != 4 {
		t.Fatalf("got %d whole requests in the batch, want 4", len(ends))
	}
	for n := range size + 1 {
		if n > 600 && n%97 != 0 && !slices.Contains([]int{ends[7] - 1, ends[7], ends[7] + 1, size - 1, size}, n) {
			continue // the inside of a body
		}
		for _, cancel := range []bool{false, true} {
			c := newClient(t)
			batch(c)
			c.script.room = n
			err := c.Flush()
			if (err != nil) != (n < size) {
				t.Fatalf("a write of %d of %d bytes: got error %v", n, size, err)
			}
			var want, got []string
			for i, tag := range []string{"a", "b", "c", "d", "e"} {
				kind := "unprocessed"
				if end := ends[uint32(1+2*i)]; end != 0 && end <= n {
					kind = "lost"
				}
				want = append(want, tag+" "+kind)
				if cancel {
					got = append(got, c.cancel(uint32(1+2*i)))
				}
			}
			if rest := c.end(io.EOF); rest != "" {
				got = append(got, rest)
			}
			if got, want := strings.Join(got, "; "), strings.Join(want, "; "); got != want {
				t.Errorf("a write of %d of %d bytes, cancel %t: got %q, want %q", n, size, cancel, got, want)
			}
		}
	}
}

// The texts say why a request was not processed, where nothing else does.
func TestOutcomeTexts(t *testing.T) {
	c := newClient(t)
	c.heldBack()
	c.script.reads = [][]byte{slices.Concat(reset(1, h2.CodeRefusedStream), answer(3, "20"))}
	outcomes, err := c.Read()
	if err != nil || len(outcomes) != 2 {
		t.Fatalf("got %d outcomes, %v, want 2", len(outcomes), err)
	}
	if o, want := outcomes[0], "not all of it was written"; o.Text != want || o.Stream != 1 {
		t.Errorf("got stream %d, %q, want 1, %q", o.Stream, o.Text, want)
	}
	if o, want := outcomes[1], `:status is "20", expected three digits, and not 101`; o.Text != want || o.Stream != 3 {
		t.Errorf("got stream %d, %q, want 3, %q", o.Stream, o.Text, want)
	}
	c = newClient(t)
	c.written()
	c.script.reads = [][]byte{slices.Concat(reset(1, h2.CodeRefusedStream), goAway(3))}
	outcomes, err = c.Read()
	if err != nil || len(outcomes) != 2 {
		t.Fatalf("got %d outcomes, %v, want 2", len(outcomes), err)
	}
	if o, want := outcomes[0], "the server refused its stream (REFUSED_STREAM)"; o.Text != want {
		t.Errorf("REFUSED_STREAM: got %q, want %q", o.Text, want)
	}
	if o := outcomes[1]; o.Text != "" || o.Stream != 5 {
		t.Errorf("GOAWAY: got stream %d, %q, want 5 and no text", o.Stream, o.Text)
	}
}

// A response that Cancel or Rest returns stays valid.
func TestResponsesOfCancel(t *testing.T) {
	c := newClient(t)
	c.written()
	c.receive(begin(1, "400"), data(1, 0, "why a"), begin(3, "500"), data(3, 0, "why b"))
	o, ok := c.Cancel(1)
	if !ok {
		t.Fatal("Cancel: got no outcome, want one")
	}
	for i := range 10 {
		stream := c.open("d")
		c.flush()
		c.receive(data(1, 0, "more"), begin(stream, "200"), data(stream, h2.FlagEndStream, fmt.Sprint("other ", i)))
	}
	rest := c.Rest()
	if got, want := text(o), `a answered 400 "why a" cut`; got != want {
		t.Errorf("Cancel: got %q, want %q", got, want)
	}
	if got, want := strings.Join(texts(rest), "; "), `b answered 500 "why b" cut; c lost`; got != want {
		t.Errorf("Rest: got %q, want %q", got, want)
	}
}

// The error of the connection comes out of Read as it is.
func TestReadErrors(t *testing.T) {
	other := errors.New("other")
	for _, err := range []error{io.EOF, io.ErrUnexpectedEOF, other} {
		c := newClient(t)
		c.open("a")
		if got := c.end(err); got != "a unprocessed" {
			t.Errorf("%v: got %q, want a unprocessed", err, got)
		}
		if c.Room() != 0 || c.Pending() != true {
			t.Errorf("%v: got room %d, want 0", err, c.Room())
		}
	}
	// In the middle of a frame.
	c := newClient(t)
	c.written()
	c.receive(answer(1, "200")[:9])
	if got := c.end(io.EOF); got != "a lost; b lost; c lost" {
		t.Errorf("the end in the middle of an answer: got %q, want all lost", got)
	}
}
