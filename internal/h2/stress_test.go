package h2_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/apns/internal/h2"
)

// A pipe is a connection in memory to a server that is a function. The server is
// called with each write of the client, by the client's writer.
type pipe struct {
	server func(written []byte) (answer []byte, err error)

	mu     sync.Mutex
	filled sync.Cond // of mu
	unread []byte
	err    error // that Read returns when unread is empty
}

func newPipe(server func(written []byte) ([]byte, error)) *pipe {
	p := &pipe{server: server}
	p.filled.L = &p.mu
	return p
}

func (p *pipe) Write(b []byte) (int, error) {
	answer, err := p.server(b)
	p.send(answer, nil)
	if err != nil {
		return len(b) / 2, err
	}
	return len(b), nil
}

// send has the client read b, and then an error unless it is nil.
func (p *pipe) send(b []byte, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread = append(p.unread, b...)
	if err != nil {
		p.err = err
	}
	p.filled.Broadcast()
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.unread) == 0 && p.err == nil {
		p.filled.Wait()
	}
	if len(p.unread) == 0 {
		return 0, p.err
	}
	n := copy(b, p.unread)
	p.unread = p.unread[n:]
	return n, nil
}

// A mood is how a server of the stress test behaves: it returns what is sent for a
// request that is whole.
type mood struct {
	name   string
	answer func(rnd *rand.Rand, stream uint32) []byte
	end    func(last uint32) []byte // what it sends when the test has run for a while
	fails  bool                     // a write fails then
}

// The writer, the reader and others who cancel, ping and close, at the same time:
// each request has one outcome, and nobody waits for ever. It is for the race
// detector.
func TestConcurrency(t *testing.T) {
	quick := func(rnd *rand.Rand, stream uint32) []byte { return answer(stream, "200") }
	moody := func(rnd *rand.Rand, stream uint32) []byte {
		switch rnd.IntN(12) {
		case 0:
			return nil // no answer
		case 1:
			return reset(stream, h2.CodeRefusedStream)
		case 2:
			return slices.Concat(begin(stream, "400"), data(stream, 0, "why"))
		case 3:
			return slices.Concat(headers(stream, 0, ":status", "103"), begin(stream, "400"), data(stream, h2.FlagEndStream, "why"))
		case 4:
			return headers(stream, h2.FlagEndStream, "A", "b")
		case 5:
			return slices.Concat(settings(h2.SettingValue{Setting: h2.SettingMaxConcurrentStreams, Value: uint32(20 + rnd.IntN(200))}), answer(stream, "200"))
		case 6:
			return slices.Concat(setting(h2.SettingInitialWindowSize, uint32(rnd.IntN(20))), answer(stream, "200"))
		case 7:
			return slices.Concat(ping(9), windowUpdate(0, 1000), answer(stream, "200"))
		}
		return answer(stream, "200")
	}
	duration := 100 * time.Millisecond
	for _, m := range []mood{
		{"quick", quick, nil, false},
		{"moody", moody, nil, false},
		{"silent", func(*rand.Rand, uint32) []byte { return nil }, nil, false},
		{"GOAWAY", moody, func(last uint32) []byte { return slices.Concat(goAway(h2.MaxStream), goAway(last-last/4|1)) }, false},
		{"a broken write", moody, nil, true},
		{"an error", quick, func(uint32) []byte { return windowUpdate(0, 0) }, false},
		{"a flood", quick, func(uint32) []byte { return slices.Repeat(ping(1), 50_000) }, false},
	} {
		t.Run(m.name, func(t *testing.T) { stress(t, m, duration) })
	}
}

func stress(t *testing.T, m mood, duration time.Duration) {
	var (
		rnd      = rand.New(rand.NewPCG(3, 4)) // of the server
		raw      rawReader
		started  bool
		last     uint32
		failing  atomic.Bool
		lastSeen atomic.Uint32
		p        *pipe
	)
	p = newPipe(func(written []byte) (answer []byte, err error) {
		if failing.Load() {
			return nil, errWrite
		}
		raw.b = append(raw.b, written...)
		if !started {
			raw.b = raw.b[len(h2.Preface):]
			started = true
			answer = slices.Concat(settings(), h2.AppendSettingsAck(nil), windowUpdate(0, 1<<30))
		}
		for {
			f, ok := raw.next()
			if !ok {
				break
			}
			switch {
			case f.kind == h2.TypeHeaders:
				last = f.stream
				lastSeen.Store(last)
			case f.kind == h2.TypePing && !f.has(h2.FlagAck):
				answer = append(answer, h2.AppendPing(nil, h2.FlagAck, [8]byte(f.payload))...)
			}
			if (f.kind == h2.TypeHeaders || f.kind == h2.TypeData) && f.has(h2.FlagEndStream) {
				answer = append(answer, m.answer(rnd, f.stream)...)
			}
		}
		return answer, nil
	})
	c := h2.NewConn(p)

	type counts struct{ opened, outcomes atomic.Int64 }
	var n counts
	var mu sync.Mutex
	seen := make(map[int]string)
	take := func(outcomes ...h2.Outcome) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range outcomes {
			tag := o.Tag.(int)
			if seen[tag] != "" {
				t.Errorf("request %d: got %s, and before %s", tag, text(o), seen[tag])
			}
			seen[tag] = text(o)
			n.outcomes.Add(1)
		}
	}

	var wg sync.WaitGroup
	stop := make(chan struct{})
	wake := make(chan struct{}, 1)
	wakeWriter := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	wg.Go(func() { // the writer
		for err := error(nil); err == nil; {
			select {
			case <-wake:
			case <-stop:
				c.Close(h2.CodeNo)
				c.Flush()
				return
			}
			for err == nil {
				for range 20 {
					body := "{}"
					if n.opened.Load()%3 == 0 {
						body = "0123456789012345678901234567890123456789"
					}
					r := request("x", body)
					r.Tag = int(n.opened.Load())
					stream, err := c.Open(r)
					if err != nil {
						t.Errorf("Open: %v", err)
					}
					if stream == 0 {
						break
					}
					n.opened.Add(1)
				}
				if !c.Pending() {
					break
				}
				err = c.Flush()
			}
			if err != nil && !errors.Is(err, errWrite) {
				t.Errorf("Flush: %v", err)
			}
		}
	})
	wg.Go(func() { // the reader
		for {
			outcomes, err := c.Read()
			take(outcomes...)
			wakeWriter()
			if err != nil {
				return
			}
		}
	})
	for i := range uint64(2) { // who cancels
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(i, 0))
			for {
				select {
				case <-stop:
					return
				default:
				}
				stream := max(0, int(lastSeen.Load())-rnd.IntN(1000))
				if o, ok := c.Cancel(uint32(stream) | 1); ok {
					if o.Response != nil {
						_ = text(o)
					}
					take(o)
					wakeWriter()
				}
				if rnd.IntN(10) == 0 {
					c.Ping()
					c.SetLimit(1 + rnd.IntN(300))
				}
				_, _, _ = c.Room(), c.Active(), c.GoAway()
				_, _ = c.Pinging(), c.Limit()
				if rnd.IntN(5) == 0 {
					time.Sleep(time.Microsecond)
				}
			}
		})
	}
	wakeWriter()
	time.Sleep(duration)
	if m.end != nil {
		p.send(m.end(lastSeen.Load()), nil)
	}
	failing.Store(m.fails)
	wakeWriter()
	time.Sleep(duration / 4)
	close(stop)
	p.send(nil, io.EOF)
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		panic("the goroutines have not ended")
	}
	take(c.Rest()...)
	if n.opened.Load() != n.outcomes.Load() || c.Active() != 0 || n.opened.Load() == 0 {
		t.Errorf("got %d outcomes of %d requests, %d active, want one for each", n.outcomes.Load(), n.opened.Load(), c.Active())
	}
	t.Log(fmt.Sprint(n.opened.Load(), " requests"))
}
