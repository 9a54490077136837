package h2_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.com/apns/internal/h2"
)

// A stream that was cancelled counts against the limit until the server ends it, or
// answers a PING that was sent after the reset.
func TestCancelledStreamsCount(t *testing.T) {
	cat := slices.Concat[[]byte]
	for _, test := range []struct {
		name   string
		server []byte
		room   int // of 2; b is in flight
	}{
		{"nothing", nil, 0},
		{"the answer", answer(1, "200"), 1},
		{"a malformed answer", headers(1, h2.FlagEndStream, "A", "b"), 1},
		{"a status", begin(1, "200"), 0},
		{"a 1xx response", headers(1, 0, ":status", "103"), 0},
		{"a part of the body", cat(begin(1, "200"), data(1, 0, "x")), 0},
		{"the end of the body", cat(begin(1, "200"), data(1, h2.FlagEndStream, "")), 1},
		{"trailers", cat(begin(1, "200"), headers(1, h2.FlagEndStream)), 1},
		{"RST_STREAM", reset(1, h2.CodeNo), 1},
		{"RST_STREAM twice", cat(reset(1, h2.CodeNo), reset(1, h2.CodeNo)), 1},
		{"WINDOW_UPDATE", windowUpdate(1, 1), 0},
		{"a wrong WINDOW_UPDATE", windowUpdate(1, 0), 0},
		{"the answer to the PING", pong(1), 1},
		{"an answer to another PING", cat(pong(0), pong(2)), 0},
		{"a PING", ping(1), 0},
		{"the answer to the PING, and its own", cat(pong(1), answer(1, "200")), 1},
		{"its own answer, and that to the PING", cat(answer(1, "200"), pong(1)), 1},
	} {
		c := newClient(t, h2.SettingValue{h2.SettingMaxConcurrentStreams, 2})
		c.open("a", "b")
		c.flush()
		c.sent()
		if c.cancel(1); c.Room() != 0 || c.Active() != 1 || !c.Pinging() {
			t.Errorf("%s: after Cancel: got room %d, %d active, pinging %t, want 0, 1, true", test.name, c.Room(), c.Active(), c.Pinging())
		}
		if got, want := c.flushed(), "RST_STREAM 1 CANCEL; PING 1"; got != want {
			t.Errorf("%s: the client sent %q, want %q", test.name, got, want)
		}
		if got := c.receive(test.server); got != "" || c.Room() != test.room {
			t.Errorf("%s: got outcomes %q, room %d, want none, %d", test.name, got, c.Room(), test.room)
		}
		if got := c.end(io.EOF); got != "b lost" {
			t.Errorf("%s: at the end: got %q, want b lost", test.name, got)
		}
	}
}

// There is one such PING at a time. It frees the streams that were reset before it.
func TestOnePingForAllResets(t *testing.T) {
	c := newClient(t, h2.SettingValue{h2.SettingMaxConcurrentStreams, 5})
	c.open("a", "b", "c", "d", "e")
	c.flush()
	c.sent()
	check := func(step, sent string, room int) {
		t.Helper()
		if got := c.flushed(); got != sent || c.Room() != room {
			t.Errorf("%s: the client sent %q, room %d, want %q, %d", step, got, c.Room(), sent, room)
		}
	}
	c.cancel(1)
	check("the first", "RST_STREAM 1 CANCEL; PING 1", 0)
	c.cancel(3)
	c.cancel(5)
	check("two more", "RST_STREAM 3 CANCEL; RST_STREAM 5 CANCEL", 0)
	c.receive(pong(1))
	check("the first answer", "PING 2", 1)
	c.cancel(7)
	check("another one", "RST_STREAM 7 CANCEL", 1)
	c.receive(answer(5, "200"))
	check("the server ends one", "", 2)
	c.receive(pong(1)) // once more
	check("the first answer again", "", 2)
	c.receive(pong(2))
	check("the second answer", "PING 3", 3)
	c.receive(pong(3))
	check("the third answer", "", 4)
	if c.Pinging() {
		t.Error("at the end: got pinging true, want false")
	}
	// A PING that is on its way already says nothing of a reset after it.
	c.Ping()
	check("a PING", "PING 4", 4)
	c.cancel(9)
	check("a reset after it", "RST_STREAM 9 CANCEL", 4)
	c.receive(pong(4))
	check("its answer", "PING 5", 4)
	c.receive(pong(5))
	check("the next answer", "", 5)
	// Neither does one that waits to be written, before the reset.
	c.open("f")
	c.Ping()
	c.cancel(11)
	check("a PING and a reset", "HEADERS 11; DATA 11 2 END_STREAM; PING 6; RST_STREAM 11 CANCEL", 4)
	c.receive(pong(6))
	check("its answer", "PING 7", 4)
	c.receive(pong(7))
	check("the last answer", "", 5)
}

// A number whose slot in the table is taken is left out, and frames of it are those
// of a closed stream.
func TestSkippedNumbers(t *testing.T) {
	c := newClient(t)
	c.open("first")
	c.flush()
	var got []uint32
	for range 2 * h2.MinTable {
		stream := c.open("a")
		got = append(got, stream)
		c.flush()
		c.receive(answer(stream, "200"))
	}
	const first = 1 + 2*h2.MinTable // its slot is that of stream 1
	if slices.Contains(got, first) || !slices.Contains(got, first-2) || !slices.Contains(got, first+2) || slices.Contains(got, first+2*h2.MinTable) {
		t.Errorf("got streams %v, want %d and %d left out", got, first, first+2*h2.MinTable)
	}
	if got := c.receive(reset(first, 8), answer(first, "200"), windowUpdate(first, 1), answer(1, "200")); got != "first answered 200" {
		t.Errorf("frames of a number that was left out: got %q, want an answer of the first stream", got)
	}
	if c.Active() != 0 || c.Room() != h2.DefaultStreams {
		t.Errorf("at the end: got %d active, room %d, want 0, %d", c.Active(), c.Room(), h2.DefaultStreams)
	}
}

// As many streams as there can be, answered in different orders.
func TestManyStreams(t *testing.T) {
	for name, order := range map[string]func(streams []uint32){
		"in order": func([]uint32) {},
		"reverse":  slices.Reverse[[]uint32],
		"random": func(s []uint32) {
			rand.New(rand.NewPCG(1, 2)).Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		},
	} {
		c := newClient(t, h2.SettingValue{h2.SettingMaxConcurrentStreams, 1<<32 - 1})
		for round := range 3 {
			var streams []uint32
			for c.Room() > 0 {
				streams = append(streams, c.open("a"))
				if len(streams)%100 == 0 {
					c.receive(windowUpdate(0, 200))
				}
			}
			if len(streams) != h2.MaxStreams || c.Active() != h2.MaxStreams {
				t.Fatalf("%s, round %d: got %d streams, %d active, want %d", name, round, len(streams), c.Active(), h2.MaxStreams)
			}
			c.flush()
			order(streams)
			answered := 0
			for part := range slices.Chunk(streams, 100) {
				var b []byte
				for _, stream := range part {
					b = append(b, answer(stream, "200")...)
				}
				answered += strings.Count(c.receive(b), "a answered 200")
			}
			if answered != len(streams) || c.Active() != 0 {
				t.Errorf("%s, round %d: got %d answers, %d active, want %d, 0", name, round, answered, c.Active(), len(streams))
			}
			c.script.written = nil
		}
		if _, slots, _ := c.Memory(); slots > 2*h2.MaxStreams {
			t.Errorf("%s: got a table of %d slots, want at most %d", name, slots, 2*h2.MaxStreams)
		}
	}
}

// Streams are opened, answered and cancelled at random, and compared to a map.
func TestTableAtRandom(t *testing.T) {
	const (
		active    = "active"
		cancelled = "cancelled"
	)
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		limit := 1 << rnd.IntN(12) // up to 2,048
		c := newClient(t, h2.SettingValue{h2.SettingMaxConcurrentStreams, uint32(limit)})
		c.receive(windowUpdate(0, 1<<30))
		model := make(map[uint32]string)
		var streams []uint32 // those in the model
		last, tags := uint32(0), 0
		pick := func() uint32 {
			i := rnd.IntN(len(streams))
			stream := streams[i]
			streams = slices.Delete(streams, i, i+1)
			return stream
		}
		for range 3000 {
			switch op := rnd.IntN(20); {
			case op < 10 && len(model) < limit:
				tags++
				stream := c.open(fmt.Sprint(tags))
				if stream <= last || stream%2 == 0 || model[stream] != "" {
					t.Fatalf("seed %d: got stream %d after %d", seed, stream, last)
				}
				last = stream
				model[stream] = active
				streams = append(streams, stream)
				c.flush()
			case op < 15 && len(streams) > 0:
				stream := pick()
				got := c.receive(answer(stream, "200"))
				if answered := strings.HasSuffix(got, " answered 200"); answered != (model[stream] == active) {
					t.Fatalf("seed %d, stream %d, %s: got %q", seed, stream, model[stream], got)
				}
				delete(model, stream)
			case op < 18 && len(streams) > 0:
				stream := pick()
				got := c.cancel(stream)
				if (got != "none") != (model[stream] == active) {
					t.Fatalf("seed %d: Cancel of stream %d, %s: got %q", seed, stream, model[stream], got)
				}
				model[stream] = cancelled
				streams = append(streams, stream)
			case op == 18:
				// The server answers two PINGs, so that no cancelled stream is left.
				for range 2 {
					c.flush()
					frames := c.sends.take(c.script.written)
					c.script.written = nil
					for _, f := range frames {
						if f.kind == h2.TypePing && !f.has(h2.FlagAck) {
							c.receive(h2.AppendPing(nil, h2.FlagAck, [8]byte(f.payload)))
						}
					}
				}
				if c.Pinging() {
					t.Fatalf("seed %d: a PING without answer is left", seed)
				}
				for stream, state := range model {
					if state == cancelled {
						delete(model, stream)
					}
				}
				streams = slices.DeleteFunc(streams, func(stream uint32) bool { return model[stream] == "" })
			}
			n := 0
			for _, state := range model {
				if state == active {
					n++
				}
			}
			if c.Active() != n || c.Room() != limit-len(model) {
				t.Fatalf("seed %d: got %d active, room %d, want %d, %d", seed, c.Active(), c.Room(), n, limit-len(model))
			}
		}
		c.end(io.EOF)
		if len(c.log) != tags {
			t.Errorf("seed %d: got %d outcomes, want one for each of %d requests", seed, len(c.log), tags)
		}
		slices.Sort(c.log)
		for i := range len(c.log) - 1 {
			if a, _, _ := strings.Cut(c.log[i], " "); strings.HasPrefix(c.log[i+1], a+" ") {
				t.Errorf("seed %d: got outcomes %q and %q, want one", seed, c.log[i], c.log[i+1])
			}
		}
	}
}
