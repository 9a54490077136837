package h2_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/apns/internal/h2"
)

// What a broken or hostile server can do is bounded (RFC 9113, section 10.5).

// lastWords has the client read frames until an error, which has to have that code.
// It returns the outcomes.
func (c *client) lastWords(code string, frames ...[]byte) string {
	c.t.Helper()
	got, err := c.read(0, frames...)
	if codeOf(err) != code {
		c.t.Errorf("got error %v, want %s", err, code)
	}
	c.sent()
	if got, want := c.flushed(), "GOAWAY 0 "+code; !strings.HasSuffix(got, want) {
		c.t.Errorf("the client sent %.100q, want %q", got, want)
	}
	return got
}

func TestContinuationFlood(t *testing.T) {
	for _, payload := range []string{"", "x"} {
		c := newClient(t)
		c.open("a")
		c.flush()
		c.lastWords("ENHANCE_YOUR_CALM", continuations(h2.MaxContinuations+1, payload))
	}
	// A block that does not end, in frames of any size.
	c := newClient(t)
	c.open("a")
	c.flush()
	c.lastWords("ENHANCE_YOUR_CALM", frame(h2.TypeHeaders, 0, 1, strings.Repeat("x", 16384)), frame(h2.TypeContinuation, 0, 1, strings.Repeat("x", h2.MaxBlock-16384+1)))
	// As many as are taken.
	c = newClient(t)
	c.open("a")
	c.flush()
	b := slices.Concat(frame(h2.TypeHeaders, h2.FlagEndStream, 1, "\x88"), continuations(h2.MaxContinuations, "")[9:])
	if got := c.receive(b); got != "a answered 200" {
		t.Errorf("%d CONTINUATION frames: got %q, want an answer", h2.MaxContinuations, got)
	}
}

// A field in the table that a block names many times.
func TestDecompressionBomb(t *testing.T) {
	value := strings.Repeat("x", 3900)
	entry := block(":status", "200")
	entry = append(entry, 0x40, 1, 'a', 0x7f, 0xbd, 0x1d) // literal with incremental indexing, 3,900 bytes
	entry = append(entry, value...)
	fields := (h2.MaxDecoded - 42) / (1 + len(value) + 32) // that are taken
	for _, test := range []struct {
		fields int
		want   string
	}{
		{h2.MaxList / (1 + len(value) + 32), "a answered 200"},
		{h2.MaxList/(1+len(value)+32) + 1, "a malformed"},
		{fields, "a malformed"},
		{fields + 1, "ENHANCE_YOUR_CALM"},
		{h2.MaxBlock - len(entry) + 1, "ENHANCE_YOUR_CALM"},
	} {
		bomb := append(slices.Clone(entry), strings.Repeat("\xbe", test.fields-1)...)
		c := newClient(t)
		c.open("a")
		c.flush()
		c.sent()
		got, err := c.read(0, h2.AppendFrame(nil, h2.TypeHeaders, h2.FlagEndStream|h2.FlagEndHeaders, 1, bomb))
		if err != nil {
			got = codeOf(err)
		}
		if got != test.want {
			t.Errorf("%d times a field of %d bytes: got %q, want %q", test.fields, len(value), got, test.want)
		}
	}
}

// A header of more than maxList is malformed, whatever section it is in.
func TestHeaderList(t *testing.T) {
	of := func(size int) []string { // a field of that size
		return []string{"a", strings.Repeat("x", size-1-32)}
	}
	for _, test := range []struct {
		name   string
		server []byte
		want   string
	}{
		{"as large as is taken", headers(1, h2.FlagEndStream, with(goodResponse, of(h2.MaxList)...)...), "a answered 200"},
		{"too large", headers(1, h2.FlagEndStream, with(goodResponse, of(h2.MaxList+1)...)...), "a malformed"},
		{"two fields", headers(1, h2.FlagEndStream, with(goodResponse, with(of(h2.MaxList/2), of(h2.MaxList/2)...)...)...), "a answered 200"},
		{"many fields", headers(1, h2.FlagEndStream, with(goodResponse, slices.Repeat(of(40), h2.MaxList/40+1)...)...), "a malformed"},
		{"1xx", slices.Concat(headers(1, 0, with([]string{":status", "103"}, of(h2.MaxList+1)...)...), answer(1, "200")), "a malformed"},
		{"trailers", slices.Concat(begin(1, "200"), headers(1, h2.FlagEndStream, of(h2.MaxList+1)...)), "a malformed"},
	} {
		c := newClient(t)
		c.open("a")
		c.flush()
		if got := c.receive(test.server); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// Frames that make the client answer, while nothing is flushed: Read waits.
func TestReplyFloods(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame []byte
		reply int // its size
	}{
		{"PING", ping(1), 17},
		{"SETTINGS", settings(), 9},
	} {
		free := map[string]func(c *client){
			"Flush": func(c *client) { c.flush() },
			"Close": func(c *client) { c.Close(h2.CodeNo) },
			"a write that fails": func(c *client) {
				c.script.room = 5
				c.Flush()
			},
		}
		for name, free := range free {
			synctest.Test(t, func(t *testing.T) {
				c := newClient(t)
				for range h2.MaxReplies {
					c.receive(test.frame)
				}
				c.receive(test.frame) // Read waits after one too many
				done := make(chan error)
				go func() {
					c.script.reads = [][]byte{test.frame}
					_, err := c.Read()
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("%s flood: Read returned %v, want it to wait for Flush", test.name, err)
				default:
				}
				if out, _, _ := c.Memory(); out != (h2.MaxReplies+1)*test.reply {
					t.Errorf("%s flood: got %d bytes to be written, want %d replies", test.name, out, h2.MaxReplies+1)
				}
				free(c)
				if err := <-done; err != nil {
					t.Errorf("%s flood: Read after %s: got %v, want nil", test.name, name, err)
				}
			})
		}
		// One read brings no more than its size.
		c := newClient(t)
		c.script.reads = [][]byte{[]byte(strings.Repeat(string(test.frame), 100_000))}
		if _, err := c.Read(); err != nil {
			t.Fatal(err)
		}
		if out, _, _ := c.Memory(); out > 2*h2.ReadSize {
			t.Errorf("one read of %ss: got %d bytes to be written, want at most %d", test.name, out, 2*h2.ReadSize)
		}
		// When nothing is written any more, Read goes on and answers are left out.
		for _, broken := range []bool{false, true} {
			c := newClient(t)
			c.open("a")
			c.flush()
			if broken {
				c.Ping()
				c.script.room = 0
				c.Flush()
			} else {
				c.Close(h2.CodeNo)
			}
			for range 10 * h2.MaxReplies {
				c.receive(test.frame)
			}
			if out, _, _ := c.Memory(); out > 2*h2.MaxReplies*test.reply {
				t.Errorf("%s flood when the connection is closed: got %d bytes to be written, want at most those of %d replies", test.name, out, 2*h2.MaxReplies)
			}
			if got := c.receive(answer(1, "200")); got != "a answered 200" {
				t.Errorf("after a %s flood when the connection is closed: got %q, want an answer", test.name, got)
			}
		}
	}
}

// Malformed answers are answered too, with RST_STREAM.
func TestMalformedFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t)
		for i := range h2.MaxReplies + 1 {
			c.open(fmt.Sprint(i))
			if i%50 == 0 {
				c.flush()
			}
		}
		c.flush()
		for i := range uint32(h2.MaxReplies + 1) {
			c.receive(answer(1+2*i, "20"))
		}
		done := make(chan error)
		go func() {
			c.script.reads = [][]byte{settings()}
			_, err := c.Read()
			done <- err
		}()
		synctest.Wait()
		select {
		case err := <-done:
			t.Errorf("Read returned %v, want it to wait for Flush", err)
		default:
			c.flush()
			if err := <-done; err != nil {
				t.Errorf("after Flush: got %v, want nil", err)
			}
		}
	})
}

func TestEmptyDataFlood(t *testing.T) {
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	c.receive(begin(1, "200"), begin(3, "200"), data(3, h2.FlagEndStream, "")) // that one is of use
	for range h2.MaxEmpty / 2 {
		c.receive(data(1, 0, ""), frame(h2.TypeData, h2.FlagPadded, 3, "\x01\x00"))
	}
	c.receive(data(1, 0, "")) // the answer allows for that one
	c.lastWords("ENHANCE_YOUR_CALM", data(1, 0, ""))
}

// Of a body without end the beginning is kept, and the status counts.
func TestBodyWithoutEnd(t *testing.T) {
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	c.sent()
	full := strings.Repeat("x", 16384)
	c.receive(begin(1, "500"), data(1, 0, full), data(1, 0, full), data(1, 0, full), data(1, 0, full[:h2.StreamWindow-3*16384-1]))
	if c.Active() != 2 || c.Pending() {
		t.Errorf("before the end of the window: got %d active, pending %t, want 2, false", c.Active(), c.Pending())
	}
	c.script.reads = [][]byte{data(1, 0, "x")}
	outcomes, err := c.Read()
	if err != nil || len(outcomes) != 1 {
		t.Fatalf("got %d outcomes, %v, want 1", len(outcomes), err)
	}
	r := outcomes[0].Response
	if outcomes[0].Kind != h2.Answered || r.Status != 500 || r.Whole || len(r.Body) != h2.MaxBody {
		t.Errorf("got %s with %d bytes, whole %t, want status 500 with %d bytes", text(outcomes[0]), len(r.Body), r.Whole, h2.MaxBody)
	}
	if got, want := c.flushed(), "RST_STREAM 1 CANCEL; PING 1"; got != want {
		t.Errorf("the client sent %q, want %q", got, want)
	}
	if got := c.receive(data(1, 0, full), data(1, h2.FlagEndStream, "")); got != "" {
		t.Errorf("more of the body: got %q, want nothing", got)
	}
	// The window's last byte with the end of the body.
	if got := c.receive(begin(3, "500"), data(3, 0, full), data(3, 0, full), data(3, 0, full), data(3, h2.FlagEndStream, full[1:])); !strings.HasSuffix(got, `x"`) {
		t.Errorf("a body as large as the window: got %q, want a whole answer", got)
	}
	// A byte more.
	c.open("c")
	c.flush()
	c.sent()
	if got, want := c.receive(begin(5, "500"), data(5, 0, full), data(5, 0, full), data(5, 0, full), data(5, h2.FlagEndStream, full)), "c malformed"; got != want {
		t.Errorf("a body larger than the window: got %q, want %q", got, want)
	}
	if got := c.flushed(); !strings.HasPrefix(got, "RST_STREAM 5 FLOW_CONTROL_ERROR") {
		t.Errorf("the client sent %q, want a FLOW_CONTROL_ERROR", got)
	}
}

// A request with a ResponseSize has a window of that size, and all of the body is kept.
func TestResponseSize(t *testing.T) {
	const size = h2.StreamWindow + 2*16384
	full := strings.Repeat("x", 16384)
	newClient := func(size int) *client {
		c := newClient(t)
		r := request("a", "")
		r.ResponseSize = size
		if _, err := c.Open(r); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, test := range map[string]struct {
		size  int      // of the request
		sent  string   // for it
		parts []string // of the body
		kept  int      // in bytes; negative: the response is malformed
		whole bool
	}{
		"the largest":      {size, "HEADERS 1 END_STREAM; WINDOW_UPDATE 1 32768", []string{full, full, full, full, full, full[:size-5*16384]}, size, true},
		"a byte more":      {size, "HEADERS 1 END_STREAM; WINDOW_UPDATE 1 32768", []string{full, full, full, full, full, full[:size-5*16384] + "x"}, -1, false},
		"small":            {size, "HEADERS 1 END_STREAM; WINDOW_UPDATE 1 32768", []string{"x"}, 1, true},
		"the usual window": {h2.StreamWindow, "HEADERS 1 END_STREAM", []string{full, full, full, full[1:]}, h2.MaxBody, true},
	} {
		c := newClient(test.size)
		if got := c.flushed(); got != test.sent {
			t.Errorf("%s: the client sent %q, want %q", name, got, test.sent)
		}
		reads := begin(1, "200")
		for i, part := range test.parts {
			var flags h2.Flags
			if i == len(test.parts)-1 {
				flags = h2.FlagEndStream
			}
			reads = append(reads, data(1, flags, part)...)
		}
		var outcomes []h2.Outcome
		for c.script.reads = [][]byte{reads}; len(outcomes) == 0; {
			var err error
			if outcomes, err = c.Read(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		switch o := outcomes[0]; {
		case test.kept < 0:
			if o.Kind != h2.Malformed {
				t.Errorf("%s: got %v, want malformed", name, o.Kind)
			}
		case o.Kind != h2.Answered || len(o.Response.Body) != test.kept || o.Response.Whole != test.whole:
			t.Errorf("%s: got %v with %d bytes, whole %t, want answered with %d bytes, %t", name, o.Kind, len(o.Response.Body), o.Response.Whole, test.kept, test.whole)
		}
	}
}

// Padding uses up the window as well.
func TestPaddingWithoutEnd(t *testing.T) {
	c := newClient(t)
	c.open("a")
	c.flush()
	c.sent()
	b := begin(1, "200")
	for range h2.StreamWindow / 255 { // without a remainder
		b = append(b, frame(h2.TypeData, h2.FlagPadded, 1, "\xfdx"+strings.Repeat("\x00", 253))...)
	}
	if got, want := c.receive(b), `a answered 200 "xxxxxxxxxxxxxxxxxxxx" cut`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestInformationalFlood(t *testing.T) {
	c := newClient(t)
	c.open("a", "b")
	c.flush()
	c.sent()
	early := slices.Repeat(headers(1, 0, ":status", "103"), h2.MaxInformational)
	if got := c.receive(early, headers(3, 0, ":status", "100"), answer(3, "200")); got != "b answered 200" {
		t.Errorf("%d 1xx responses: got %q, want none for a", h2.MaxInformational, got)
	}
	if got := c.receive(headers(1, 0, ":status", "103"), answer(1, "200")); got != "a malformed" {
		t.Errorf("a 1xx response more: got %q, want a malformed", got)
	}
	if got, want := c.flushed(), "RST_STREAM 1 ENHANCE_YOUR_CALM; PING 1"; got != want {
		t.Errorf("the client sent %q, want %q", got, want)
	}
}

func TestOddFramesFlood(t *testing.T) {
	for name, odd := range map[string][]byte{
		"PRIORITY":                          frame(h2.TypePriority, 0, 9, "\x00\x00\x00\x00\x00"),
		"unknown type":                      frame(0x42, 0, 0, ""),
		"HEADERS of a closed stream":        answer(1, "200"),
		"DATA of a closed stream":           data(1, 0, "x"),
		"RST_STREAM of a closed stream":     reset(1, 0),
		"WINDOW_UPDATE of a closed stream":  windowUpdate(1, 1),
		"WINDOW_UPDATE by 0 of such":        windowUpdate(1, 0),
		"HEADERS of a cancelled stream":     headers(5, 0, ":status", "103"),
		"DATA of a cancelled stream":        data(5, 0, "x"),
		"answers to no PING":                pong(77),
		"GOAWAY again":                      goAway(9),
		"PRIORITY that depends on itself":   frame(h2.TypePriority, 0, 1, "\x00\x00\x00\x01\x00"),
		"WINDOW_UPDATE of a skipped stream": windowUpdate(1, 5),
	} {
		c := newClient(t)
		c.open("a", "b", "c")
		c.flush()
		c.receive(answer(1, "200"), answer(3, "200"))
		c.cancel(5)
		c.flush()
		b := slices.Repeat(odd, h2.MaxOdd+2) // one for each answer
		if name == "GOAWAY again" {
			b = append(b, odd...) // the first one is of use
		}
		if got, err := c.read(0, b); got != "" || err != nil {
			t.Errorf("%s: got %q, %v, want nothing", name, got, err)
		}
		c.flush() // of credits
		c.lastWords("ENHANCE_YOUR_CALM", odd)
	}
}

func TestGoAwayDebug(t *testing.T) {
	c := newClient(t)
	for _, n := range []int{0, h2.MaxDebug, h2.MaxDebug + 1, 16384 - 8} {
		c.receive(h2.AppendGoAway(nil, 9, h2.CodeEnhanceYourCalm, []byte(strings.Repeat("x", n))))
		g := c.GoAway()
		if g.Last != 9 || g.Code != h2.CodeEnhanceYourCalm || len(g.Debug) != min(n, h2.MaxDebug) {
			t.Errorf("%d bytes: got last stream %d, %v, %d bytes, want 9, %v, %d", n, g.Last, g.Code, len(g.Debug), h2.CodeEnhanceYourCalm, min(n, h2.MaxDebug))
		}
	}
}

// A server that ends every request at once, and never answers a PING, makes nothing
// grow.
func TestResetStorm(t *testing.T) {
	for name, storm := range map[string]func(c *client, stream uint32){
		"refused": func(c *client, stream uint32) { c.receive(reset(stream, h2.CodeRefusedStream)) },
		"cancelled, then reset": func(c *client, stream uint32) {
			c.cancel(stream)
			c.flush()
			c.receive(reset(stream, h2.CodeCancel))
		},
		"malformed, then reset": func(c *client, stream uint32) { c.receive(answer(stream, "20"), reset(stream, h2.CodeCancel)) },
		"answered early":        func(c *client, stream uint32) { c.receive(answer(stream, "413")) },
	} {
		c := newClient(t, h2.SettingValue{h2.SettingInitialWindowSize, 1}, h2.SettingValue{h2.SettingMaxConcurrentStreams, 10})
		for range h2.MaxOdd - 1 {
			stream := c.open("a") // a byte of it is held back
			c.flush()
			storm(c, stream)
			c.flush()
			c.script.written = c.script.written[:0]
			c.log = nil
			if c.Active() != 0 || c.Room() == 0 {
				t.Fatalf("%s, stream %d: got %d active, room %d, want 0, and some", name, stream, c.Active(), c.Room())
			}
			if c.Room() < 10 && name == "refused" {
				t.Fatalf("%s, stream %d: got room %d, want 10", name, stream, c.Room())
			}
		}
		if out, slots, listed := c.Memory(); out > 1000 || slots > h2.MinTable || listed > 3*h2.MinTable {
			t.Errorf("%s: got %d bytes to be written, %d slots and %d streams in lists, want at most 1000, %d and %d", name, out, slots, listed, h2.MinTable, 3*h2.MinTable)
		}
		c.end(io.EOF)
	}
}

// What was needed once for a burst is not kept as long as the connection.
func TestKeptMemory(t *testing.T) {
	c := newClient(t, h2.SettingValue{h2.SettingInitialWindowSize, 1 << 20})
	c.receive(windowUpdate(0, 1<<30))
	const n = 100
	var answers []byte
	for range n {
		stream := c.openBody("a", strings.Repeat("x", 5000))
		answers = append(answers, headers(stream, 0, ":status", "400", "x", strings.Repeat("y", 10_000))...)
		answers = append(answers, data(stream, h2.FlagEndStream, strings.Repeat("z", 5000))...)
	}
	c.flush()
	c.script.written = nil
	for range 3 {
		c.Ping()
		c.flush()
	}
	if got := strings.Count(c.receive(answers), "a answered 400"); got != n {
		t.Fatalf("got %d answers, want %d", got, n)
	}
	c.receive(ping(1)) // after which the responses may be used again
	if out, responses := c.Kept(); out > 2*8*h2.MinMaxFrameSize || responses > n*h2.MaxReused/10 {
		t.Errorf("got %d bytes kept for writing and %d for responses, want at most %d and %d", out, responses, 2*8*h2.MinMaxFrameSize, n*h2.MaxReused/10)
	}
	// Small responses are kept.
	stream := c.open("b")
	c.flush()
	c.receive(begin(stream, "400"), data(stream, h2.FlagEndStream, "why"))
	c.receive(ping(1))
	if _, responses := c.Kept(); responses == 0 {
		t.Error("got no response kept, want the small one")
	}
}
