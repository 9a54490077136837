package h2_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
)

// An echo is a connection to a server that answers each request with the same block.
type echo struct {
	started bool
	block   []byte
	unread  []byte
}

func (e *echo) Write(b []byte) (int, error) {
	n := len(b)
	if !e.started {
		e.started = true
		b = b[len(h2.Preface):]
		e.unread = h2.AppendSettings(e.unread, h2.SettingValue{Setting: h2.SettingMaxConcurrentStreams, Value: 1000})
		e.unread = h2.AppendWindowUpdate(e.unread, 0, 1<<30)
	}
	for len(b) >= 9 {
		kind, flags, stream := h2.Type(b[3]), h2.Flags(b[4]), binary.BigEndian.Uint32(b[5:])
		if (kind == h2.TypeHeaders || kind == h2.TypeData) && flags&h2.FlagEndStream != 0 {
			e.unread = h2.AppendHeaders(e.unread, h2.FlagEndStream, stream, e.block, 16384)
			if stream%10_000 == 1 {
				e.unread = h2.AppendWindowUpdate(e.unread, 0, 1<<20)
			}
		}
		b = b[9+(int(b[0])<<16|int(b[1])<<8|int(b[2])):]
	}
	return n, nil
}

func (e *echo) Read(b []byte) (int, error) {
	if len(e.unread) == 0 {
		return 0, errNothing
	}
	n := copy(b, e.unread)
	e.unread = e.unread[:copy(e.unread, e.unread[n:])]
	return n, nil
}

// newEcho returns a client whose requests are answered as APNs does, and a request.
func newEcho(tb testing.TB) (*h2.Conn, *echo, *h2.Request) {
	e := &echo{block: block(":status", "200", "apns-id", "123e4567-e89b-12d3-a456-4266554400a0")}
	c := h2.NewConn(e)
	if err := c.Flush(); err != nil {
		tb.Fatal(err)
	}
	if _, err := c.Read(); err != nil || c.Room() != 1000 {
		tb.Fatalf("got room %d, %v, want 1000", c.Room(), err)
	}
	return c, e, &h2.Request{
		Method:    "POST",
		Authority: "api.push.apple.com",
		Name:      "/3/device/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Fields:    []h2.Field{{Name: "apns-topic", Value: "com.example.app", Indexing: hpack.Index}, {Name: "apns-push-type", Value: "alert", Indexing: hpack.Index}},
		Literals:  hpack.AppendLiteral(nil, "authorization", "bearer "+string(bytes.Repeat([]byte("x"), 180))),
		Body:      []byte(`{"aps":{"alert":"Hello, world!"}}`),
		Tag:       e,
	}
}

// exchange sends so many requests, 40 in a write, and reads all answers.
func exchangeAll(tb testing.TB, c *h2.Conn, e *echo, r *h2.Request, n int) {
	answered := 0
	for i := range n {
		if stream, err := c.Open(r); stream == 0 || err != nil {
			tb.Fatalf("request %d: got stream %d, %v, want one", i, stream, err)
		}
		if i%40 == 39 || i == n-1 {
			if err := c.Flush(); err != nil {
				tb.Fatal(err)
			}
		}
	}
	for len(e.unread) > 0 {
		outcomes, err := c.Read()
		if err != nil {
			tb.Fatal(err)
		}
		for i := range outcomes {
			if outcomes[i].Kind == h2.Answered && outcomes[i].Response.Status == 200 {
				answered++
			}
		}
	}
	if answered != n {
		tb.Fatalf("got %d answers, want %d", answered, n)
	}
}

// A thousand requests in flight.
func BenchmarkConn(b *testing.B) {
	c, e, r := newEcho(b)
	const n = 1000
	exchangeAll(b, c, e, r, n)
	b.ReportAllocs()
	for b.Loop() {
		exchangeAll(b, c, e, r, n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/request")
}

// One request at a time.
func BenchmarkConnOne(b *testing.B) {
	c, e, r := newEcho(b)
	exchangeAll(b, c, e, r, 1)
	b.ReportAllocs()
	for b.Loop() {
		exchangeAll(b, c, e, r, 1)
	}
}

// A connection that is warm allocates nothing for a request.
func TestConnAllocations(t *testing.T) {
	c, e, r := newEcho(t)
	exchangeAll(t, c, e, r, 1000)
	for _, n := range []int{1, 1000} {
		if got := testing.AllocsPerRun(20, func() { exchangeAll(t, c, e, r, n) }); got > float64(n)/100 {
			t.Errorf("%d requests: got %v allocations, want none", n, got)
		}
	}
}
