package page_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/apnstest"
	"example.com/apns/examples/local/page"
)

// A pipeListener accepts connections in memory, for a testing/synctest bubble.
type pipeListener struct{ conns chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l pipeListener) Close() error   { close(l.conns); return nil }
func (l pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (l pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// A buffered connection reads ahead, as the system does on a network.
type buffered struct {
	net.Conn
	chunks chan []byte
	rest   []byte
}

func readAhead(c net.Conn) net.Conn {
	b := &buffered{Conn: c, chunks: make(chan []byte, 1000)}
	go func() {
		defer close(b.chunks)
		for {
			chunk := make([]byte, 32<<10)
			n, err := c.Read(chunk)
			b.chunks <- chunk[:n]
			if err != nil {
				return
			}
		}
	}()
	return b
}

func (b *buffered) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		chunk, ok := <-b.chunks
		if !ok {
			return 0, io.EOF
		}
		b.rest = chunk
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// A bubble is a fixture without a network.
type bubble struct {
	*fixture
	pipes pipeListener
}

func newBubble(t *testing.T, keep int) *bubble {
	rules := new(page.Rules)
	s := apnstest.NewUnstartedServer(func(m *apns.Message) error {
		err, _ := rules.Answer(m)
		return err
	})
	s.InMemory, s.MaxRecords, s.KeepRaw, s.StreamLimit = true, keep, true, 1000
	s.Start()
	l := pipeListener{make(chan net.Conn)}
	web := &httptest.Server{Listener: l, Config: &http.Server{Handler: (&page.Page{Server: s, Rules: rules}).Handler()}, URL: "http://127.0.0.1"}
	go web.Config.Serve(l)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return readAhead(l.dial()), nil }
	f := &bubble{&fixture{T: t, server: s, web: web}, l}
	f.transport = transport
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		web.Config.Close()
	})
	return f
}

// What a client sends or reads too slowly ends its connection. Events, and a wait for
// messages, may last.
func TestSlowClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10_000)
		conn := f.client()
		for range 500 {
			push(t.Context(), conn, token, hello)
		}
		for name, request := range map[string]string{
			"body":      "POST /api/rules HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{",
			"no use":    "DELETE /api/rules HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
			"chunked":   "POST /api/reset HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{",
			"messages":  "GET /api/messages HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"download":  "GET /api/messages.jsonl HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"page":      "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"forbidden": "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			"no answer": "DELETE /api/rules HTTP/1.1\r\nHost: localhost\r\n\r\n",
			"events":    "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
		} {
			c := f.pipes.dial()
			if _, err := io.WriteString(c, request); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			time.Sleep(30 * time.Second) // it neither sends nor reads
			answer, err := io.ReadAll(c) // the end, since the other side is closed
			if len(answer) > 8<<10 {
				t.Errorf("%s: got %d bytes (%v) after half a minute, want the connection to be closed", name, len(answer), err)
			}
			c.Close()
		}
	})
}

func TestPatientClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10_000)
		conn := f.client()
		began := time.Now()
		go func() {
			time.Sleep(50 * time.Second)
			push(t.Context(), conn, "bb", hello)
		}()
		var b batch
		f.must("GET", "/api/messages?wait=60", "{}", &b) // the deadline of the body has no effect later
		if len(b.Messages) != 1 || time.Since(began) < 50*time.Second {
			t.Errorf("got %d messages after %v, want 1 after 50s", len(b.Messages), time.Since(began))
		}
		next := f.events("", "")
		next("messages")
		time.Sleep(5 * time.Second)
		go func() {
			time.Sleep(30 * time.Second)
			push(t.Context(), conn, "bb", hello)
		}()
		next("messages")

		// A connection that is used again has new deadlines.
		c := f.pipes.dial()
		defer c.Close()
		r := bufio.NewReader(c)
		for i := range 6 {
			request, want := "GET /api/rules HTTP/1.1\r\nHost: localhost\r\n\r\n", 200
			if i%2 != 0 {
				request, want = "POST /api/reset HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 204
			}
			fmt.Fprint(c, request)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != want {
				t.Fatalf("request %d on a connection: got %v, %v", i, resp, err)
			}
			io.Copy(io.Discard, resp.Body)
			time.Sleep(20 * time.Second)
		}
	})
}

// The number of devices, topics and feedback records is bounded, however they are added, and
// what is removed makes room. It takes no longer for each than for the first.
func TestDeviceLimits(t *testing.T) {
	f := newFixture(t, 10)
	const most = 100_000
	h := f.web.Config.Handler
	call := func(method, path, body string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	topics := `["t0"`
	for i := range 99 {
		topics += fmt.Sprintf(`,"t%d"`, i+1)
	}
	topics += "]"
	device := func(i int) (int, string) {
		return call("POST", "/api/devices", fmt.Sprintf(`{"token":"%08x","topics":%s}`, i, topics))
	}
	const fit = most / 101
	for i := range fit {
		if status, text := device(i); status != 204 {
			t.Fatalf("device %d: got %d %s", i, status, text)
		}
	}
	for range 20 { // the same once more is no addition
		if status, text := device(0); status != 204 {
			t.Fatalf("once more: got %d %s", status, text)
		}
	}
	if status, text := device(fit); status != 400 || !strings.Contains(text, "expected at most 100000: remove some") {
		t.Errorf("got %d %s, want that there are too many", status, text)
	}
	if status, text := call("DELETE", "/api/devices/00000001", ""); status != 204 {
		t.Errorf("got %d %s", status, text)
	}
	if status, text := device(fit); status != 204 {
		t.Errorf("after one was removed: got %d %s", status, text)
	}
	call("DELETE", "/api/devices", "")
	if status, text := device(0); status != 204 {
		t.Errorf("after all were removed: got %d %s", status, text)
	}
	call("POST", "/api/reset", "")
	// Unregistered devices are feedback records as well, whether devices are forgotten or not.
	for i := range most {
		status, text := call("POST", "/api/devices", fmt.Sprintf(`{"token":"%08x","dead_at":"2026-01-02T03:04:05Z"}`, i%1000))
		if status != 204 {
			t.Fatalf("record %d: got %d %s", i, status, text)
		}
	}
	for _, path := range []string{"/api/devices", "/api/feedback"} {
		status, text := call("POST", path, `{"token":"aa","dead_at":"2026-01-02T03:04:05Z"}`)
		if status != 400 || !strings.Contains(text, "100000 feedback records") {
			t.Errorf("%s: got %d %s, want that there are too many", path, status, text)
		}
		call("DELETE", "/api/devices", "")
	}
	call("DELETE", "/api/feedback", "")
	if status, text := call("POST", "/api/feedback", `{"token":"aa","dead_at":"2026-01-02T03:04:05Z"}`); status != 204 {
		t.Errorf("after all were removed: got %d %s", status, text)
	}
}

// The state of many devices is looked at when they change, and not for each page.
func TestStateIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newBubble(t, 10_000)
		for i := range 20_000 {
			f.server.Register("com.example.app", fmt.Sprintf("%08x", i))
		}
		var before, after runtime.MemStats
		nexts := []func(string) (string, string){}
		for range 5 {
			next := f.events("", "")
			if data, _ := next("state"); !strings.Contains(data, `"device_count":20000`) {
				t.Errorf("got state %s, want 20000 devices", data)
			}
			nexts = append(nexts, next)
		}
		runtime.ReadMemStats(&before)
		time.Sleep(10 * time.Second)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
			t.Errorf("five pages allocate %d bytes in 10 seconds, want less than 2 MiB", n)
		}
		var many []string
		for i := range 50 {
			many = append(many, fmt.Sprintf(`"topic%02d"`, i))
		}
		f.must("POST", "/api/devices", `{"token":"0000","topics":[`+strings.Join(many, ",")+`]}`, nil)
		for _, next := range nexts {
			if data, _ := next("state"); !strings.Contains(data, `"topics":["topic00","topic01","topic02","topic03","topic04","and 45 more"]`) || !strings.Contains(data, `"device_count":20001`) {
				t.Errorf("got state %.1000s, want the new device", data)
			}
		}
	})
}

// A reset restores the feedback records of the start, and says so.
func TestResetRestoresFeedback(t *testing.T) {
	s := apnstest.NewUnstartedServer(nil)
	s.MaxRecords, s.StreamLimit = 10, 1000
	record := apns.Feedback{Token: "dead", DeadAt: time.Unix(1_700_000_000, 0)}
	s.AddFeedback(record)
	s.Start()
	t.Cleanup(s.Close)
	cleared := 0
	p := &page.Page{Server: s, Rules: new(page.Rules), FeedbackCleared: func() { cleared++ }}
	f := &fixture{T: t, server: s, web: httptest.NewServer(p.Handler())}
	t.Cleanup(f.web.Close)
	f.must("DELETE", "/api/feedback", "", nil)
	if list := s.Feedback(); len(list) != 0 {
		t.Errorf("got feedback %v, want none", list)
	}
	for range 2 {
		f.must("POST", "/api/reset", "", nil)
		if list := s.Feedback(); len(list) != 1 || list[0] != record {
			t.Errorf("after a reset got feedback %v, want that of the start", list)
		}
	}
	if cleared != 3 {
		t.Errorf("FeedbackCleared was called %d times, want 3", cleared)
	}
}

func TestReachable(t *testing.T) {
	for addr, want := range map[string]string{
		"[::]:8444": "localhost:8444", "0.0.0.0:80": "localhost:80", ":80": "localhost:80",
		"127.0.0.1:80": "127.0.0.1:80", "[::1]:80": "[::1]:80", "host:80": "host:80", "nothing": "nothing",
	} {
		if got := page.Reachable(addr); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}
