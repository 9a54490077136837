package apns_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns"
	"example.com/apns/internal/h2"
	"example.com/apns/internal/hpack"
	"example.com/apns/internal/plain"
)

// What a Conn makes of servers that behave oddly over HTTP/2, and of what its own side
// does to it. Frames are given to it without TLS.

// scriptedPeer returns the configuration of a server that does what serve does. A write
// waits until the other side reads.
func scriptedPeer(t *testing.T, serve func(net.Conn)) *apns.Config {
	client, server := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		defer server.Close()
		serve(server)
	})
	t.Cleanup(func() {
		server.Close()
		serving.Wait()
	})
	return &apns.Config{BundleID: "t", DialContext: func(context.Context, string, string) (net.Conn, error) {
		return &plain.Conn{Conn: client, Protocol: "h2"}, nil
	}}
}

// say returns a server that sends its SETTINGS, and a second later each of the given
// frames, a second apart. It reads all the time, and ends after another hour.
func say(frames ...[]byte) func(net.Conn) {
	return func(c net.Conn) {
		var reading sync.WaitGroup
		defer reading.Wait()
		defer c.Close()
		reading.Go(func() { io.Copy(io.Discard, c) })
		c.Write(h2.AppendSettings(nil))
		for _, f := range frames {
			time.Sleep(time.Second)
			if f == nil {
				return // the end
			}
			c.Write(f)
		}
		time.Sleep(time.Hour)
	}
}

func setting(s h2.Setting, value uint32) []byte {
	return h2.AppendSettings(nil, h2.SettingValue{Setting: s, Value: value})
}

func status(s string) []byte { return hpack.AppendLiteral(nil, ":status", s) }

// A message that cannot be sent at all, since its header is too large, takes no place
// from the next.
func TestHTTP2TooLargeTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, "localhost:443", scriptedPeer(t, func(c net.Conn) {
			c.Write(h2.AppendSettings(nil, h2.SettingValue{Setting: h2.SettingMaxConcurrentStreams, Value: 1},
				h2.SettingValue{Setting: h2.SettingMaxHeaderListSize, Value: 500}))
			r := h2.NewReader(c)
			for len(r.Unread()) < len(h2.Preface) && r.Fill() == nil {
			}
			r.Discard(len(h2.Preface))
			for {
				f, ok, err := r.Next()
				switch {
				case err != nil || !ok && r.Fill() != nil:
					return
				case ok && f.Type == h2.TypeData:
					time.Sleep(time.Second)
					c.Write(h2.AppendHeaders(nil, h2.FlagEndStream, f.Stream, []byte{0x88}, h2.MinMaxFrameSize))
				}
			}
		}))
		var wg sync.WaitGroup
		for i, topic := range []string{"t", strings.Repeat("t", 300), "t"} {
			time.Sleep(time.Millisecond)
			wg.Go(func() {
				m := message(uint32(i))
				m.Topic = topic
				start := time.Now()
				err := c.WritePushMsg(t.Context(), m)
				if (err == nil) != (topic == "t") || time.Since(start) > 2*time.Second {
					t.Errorf("message %d: got %v after %v; want those with a short topic accepted within 2s", i, err, time.Since(start))
				}
			})
		}
		wg.Wait()
	})
}

// A read deadline that the dialer has left on the connection ends it, and is not
// taken for the connection's own.
func TestHTTP2ReadDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		config := s.Config()
		next := config.DialContext
		config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := next(ctx, network, addr)
			if err == nil {
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
			}
			return c, err
		}
		c := dialHTTP2(t, config)
		time.Sleep(10 * time.Second)
		if err := c.CheckForError(); err == nil {
			t.Error("CheckForError: nil, want that the connection has ended")
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent)
	})
}

// A push that waits for a stream, too, finds out that the server is gone; and one that
// the server does not read, or not to its end.
func TestHTTP2SilenceIsNoticed(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"no streams": func(c net.Conn) {
			c.Write(setting(h2.SettingMaxConcurrentStreams, 0))
			io.Copy(io.Discard, c)
		},
		"no window": func(c net.Conn) {
			c.Write(setting(h2.SettingInitialWindowSize, 0))
			io.Copy(io.Discard, c)
		},
		"PINGs, and reads nothing": func(c net.Conn) {
			c.Write(h2.AppendSettings(nil))
			for {
				if _, err := c.Write(h2.AppendPing(nil, 0, [8]byte{})); err != nil {
					return
				}
			}
		},
	} {
		for _, shutdown := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := dial(t, "localhost:443", scriptedPeer(t, serve))
				synctest.Wait()
				start := time.Now()
				if shutdown {
					if err := c.Shutdown(context.Background()); err != nil {
						t.Errorf("%s: Shutdown: got %v, want nil", name, err)
					}
				} else {
					wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrNotSent)
				}
				if d := time.Since(start); d > 22*time.Second {
					t.Errorf("%s: it took %v, want 20s", name, d)
				}
			})
		}
	}
}

// What is in flight when the connection ends has the end as its reason, and not why no
// more messages were taken before that.
func TestHTTP2WhyInDoubt(t *testing.T) {
	refused := h2.AppendGoAway(nil, h2.MaxStream, h2.CodeNo, []byte(`{"reason":"BadCertificate"}`))
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, "localhost:443", scriptedPeer(t, say(refused, nil)))
		err := c.WritePushMsg(t.Context(), message(1))
		wantErr(t, err, apns.ErrInDoubt)
		if errors.Is(err, apns.ErrRefused) {
			t.Errorf("got %v, which matches ErrRefused, but it was sent", err)
		}
		wantErr(t, c.WritePushMsg(t.Context(), message(2)), apns.ErrNotSent, apns.ErrRefused, apns.ReasonBadCertificate)
	})
	synctest.Test(t, func(t *testing.T) {
		c := dial(t, "localhost:443", scriptedPeer(t, say(h2.AppendGoAway(nil, 1, h2.CodeNo, []byte(`{"reason":"Shutdown"}`)))))
		time.AfterFunc(5*time.Second, func() { c.Close() })
		wantErr(t, c.WritePushMsg(t.Context(), message(1)), apns.ErrInDoubt, net.ErrClosed)
	})
}

// An answer that is cut off counts as far as it has come.
func TestHTTP2CutAnswers(t *testing.T) {
	part := func(s, body string) []byte {
		b := h2.AppendHeaders(nil, 0, 1, status(s), h2.MinMaxFrameSize)
		return h2.AppendFrame(b, h2.TypeData, 0, 1, []byte(body))
	}
	for name, test := range map[string]struct {
		said    []byte
		matches []error // none: accepted; otherwise rejected, or what the error matches
	}{
		"200":              {part("200", ""), nil},
		"503":              {part("503", "Serv"), []error{apns.ErrInDoubt}},
		"403, half a body": {part("403", `{"reason":"InvalidProv`), []error{errAny}},
		"410, whole":       {part("410", `{"reason":"Unregistered"}`), []error{apns.ReasonUnregistered}},
	} {
		for _, end := range []string{"context", "RST_STREAM", "close"} {
			synctest.Test(t, func(t *testing.T) {
				frames := [][]byte{test.said}
				switch end {
				case "RST_STREAM":
					frames = append(frames, h2.AppendRSTStream(nil, 1, h2.CodeInternal))
				case "close":
					frames = append(frames, nil)
				}
				c := dial(t, "localhost:443", scriptedPeer(t, say(frames...)))
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				err := c.WritePushMsg(ctx, message(1))
				e, rejected := err.(*apns.PushError)
				switch {
				case test.matches == nil:
					if err != nil {
						t.Errorf("%s, %s: got %v, want nil", name, end, err)
					}
				case test.matches[0] == apns.ErrInDoubt:
					if wantErr(t, err, apns.ErrInDoubt); end == "context" {
						wantErr(t, err, apns.ErrInDoubt, context.DeadlineExceeded)
					}
				case !rejected, test.matches[0] == errAny && e.Reason != "", test.matches[0] != errAny && !errors.Is(err, test.matches[0]):
					t.Errorf("%s, %s: got %v, want a *PushError that matches %v", name, end, err, test.matches)
				}
			})
		}
	}
}

// The error of an answer that breaks the rules has its status, and the first 100 bytes of
// its body.
func TestHTTP2MalformedAnswers(t *testing.T) {
	head := func(s string, fields ...string) []byte {
		block := status(s)
		for i := 0; i < len(fields); i += 2 {
			block = hpack.AppendLiteral(block, fields[i], fields[i+1])
		}
		return h2.AppendHeaders(nil, 0, 1, block, h2.MinMaxFrameSize)
	}
	body := func(b []byte, flags h2.Flags, text string) []byte {
		return h2.AppendFrame(b, h2.TypeData, flags, 1, []byte(text))
	}
	long := strings.Repeat("x", 150)
	for name, test := range map[string]struct {
		said []byte
		want string
	}{
		"content-length": {body(head("503", "content-length", "9"), h2.FlagEndStream, "oops!"),
			`a body of 5 bytes, expected 9 by its content-length (HTTP status 503, and the body begins with "oops!")`},
		"content-length, long": {body(head("400", "content-length", "9"), h2.FlagEndStream, long),
			`(HTTP status 400, and the body begins with "` + long[:100] + `")`},
		"a field in upper case": {head("500", "Retry", "1"), "(HTTP status 500)"},
		"HEADERS in the middle": {append(body(head("502"), 0, "Bad"), head("502")...), `(HTTP status 502, and the body begins with "Bad")`},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, "localhost:443", scriptedPeer(t, say(test.said)))
			err := c.WritePushMsg(t.Context(), message(1))
			wantErr(t, err, apns.ErrInDoubt)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: got %v, want %s in it", name, err, test.want)
			}
		})
	}
}

// A GOAWAY says that the server has not processed a message, although the answer has begun,
// without a reason and without an end: it is not in doubt. What was accepted is accepted.
func TestHTTP2GoAwayAfterStatus(t *testing.T) {
	for code, want := range map[string]string{"503": "not sent", "301": "not sent", "200": "accepted", "400": "rejected"} {
		synctest.Test(t, func(t *testing.T) {
			said := h2.AppendHeaders(nil, 0, 1, status(code), h2.MinMaxFrameSize)
			c := dial(t, "localhost:443", scriptedPeer(t, say(said, h2.AppendGoAway(nil, 0, 0, nil), nil)))
			err := c.WritePushMsg(t.Context(), message(1))
			if wantClass(t, err, want); t.Failed() {
				t.Logf("after status %s", code)
			}
		})
	}
}

// A broken answer to a message whose payload was held back: it was not sent.
func TestHTTP2BrokenAnswerNoWindow(t *testing.T) {
	for name, said := range map[string][]byte{
		"WINDOW_UPDATE of 0":  h2.AppendWindowUpdate(nil, 1, 0),
		"DATA before HEADERS": h2.AppendFrame(nil, h2.TypeData, 0, 1, []byte("x")),
		"503":                 h2.AppendHeaders(nil, h2.FlagEndStream, 1, status("503"), h2.MinMaxFrameSize),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := dial(t, "localhost:443", scriptedPeer(t, say(setting(h2.SettingInitialWindowSize, 0), said)))
			time.Sleep(1500 * time.Millisecond)
			err := c.WritePushMsg(t.Context(), message(1))
			t.Logf("%s: %v", name, err)
			wantErr(t, err, apns.ErrNotSent)
		})
	}
}

// Dial fails if nothing can be written.
func TestHTTP2DialWriteFails(t *testing.T) {
	for range 100 {
		synctest.Test(t, func(t *testing.T) {
			config := scriptedPeer(t, func(c net.Conn) { io.Copy(io.Discard, c) })
			next := config.DialContext
			config.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := next(ctx, network, addr)
				return &plain.Conn{Conn: failingWriter{c}, Protocol: "h2"}, err
			}
			if _, err := apns.Dial(t.Context(), "localhost:443", config); !errors.Is(err, errAny) {
				t.Errorf("got %v, want the error of Write", err)
			}
		})
	}
}

type failingWriter struct{ net.Conn }

func (failingWriter) Write([]byte) (int, error) { return 0, errAny }

// Where nothing is in flight, Shutdown needs no time.
func TestHTTP2ShutdownIdle(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c := dialHTTP2(t, inMemory(t, nil).Config())
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := c.Shutdown(ctx); err != nil {
				t.Errorf("got %v, want nil", err)
			}
		})
	}
}

// A logger may use the connection that it hears of.
func TestHTTP2LoggerUsesConn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t, nil)
		config := s.TokenConfig()
		var conn atomic.Pointer[apns.Conn]
		logged := make(map[string]int)
		config.Logger = slog.New(handler(func(r slog.Record) {
			logged[r.Message]++
			if c := conn.Load(); c != nil {
				c.CheckForError()
			}
		}))
		c := dialHTTP2(t, config)
		conn.Store(c)
		for range 3 {
			if err := c.WritePushMsg(t.Context(), message(1)); err != nil {
				t.Error(err)
			}
			time.Sleep(56 * time.Minute)
		}
		c.Close()
		if n := logged["apns: new provider token"]; n != 2 {
			t.Errorf("logged %v, want two new provider tokens", logged)
		}
	})
}

// A handler is a slog.Handler that is told everything.
type handler func(slog.Record)

func (h handler) Enabled(context.Context, slog.Level) bool      { return true }
func (h handler) Handle(_ context.Context, r slog.Record) error { h(r); return nil }
func (h handler) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h handler) WithGroup(string) slog.Handler                 { return h }

// Each GOAWAY is logged once, however much is answered after it; and the reason may be
// in the first or in the second.
func TestHTTP2GoAwayLoggedOnce(t *testing.T) {
	reason := []byte(`{"reason":"Shutdown"}`)
	for _, goAways := range [][2][]byte{
		{h2.AppendGoAway(nil, h2.MaxStream, 0, nil), h2.AppendGoAway(nil, 99, 0, nil)},
		{h2.AppendGoAway(nil, h2.MaxStream, 0, reason), h2.AppendGoAway(nil, 99, 0, nil)},
		{h2.AppendGoAway(nil, h2.MaxStream, 0, nil), h2.AppendGoAway(nil, 99, 0, reason)},
		{h2.AppendGoAway(nil, 99, 0, nil), h2.AppendGoAway(nil, 99, 0, reason)},
	} {
		synctest.Test(t, func(t *testing.T) {
			frames := goAways[:]
			for i := range uint32(50) {
				frames = append(frames, h2.AppendHeaders(nil, h2.FlagEndStream, 2*i+1, []byte{0x88}, h2.MinMaxFrameSize))
			}
			config := scriptedPeer(t, say(frames...))
			var n atomic.Int32
			config.Logger = slog.New(handler(func(r slog.Record) {
				if r.Message == "apns: GOAWAY" {
					n.Add(1)
				}
			}))
			c := dial(t, "localhost:443", config)
			var wg sync.WaitGroup
			for i := range uint32(50) {
				wg.Go(func() {
					if err := c.WritePushMsg(t.Context(), message(i)); err != nil {
						t.Error(err)
					}
				})
			}
			time.Sleep(30 * time.Second)
			if err := c.CheckForError(); err == nil || strings.Contains(string(goAways[0])+string(goAways[1]), "Shutdown") != errors.Is(err, apns.ReasonShutdown) {
				t.Errorf("CheckForError: got %v, want the reason if there is one", err)
			}
			wg.Wait()
			if n.Load() != 2 {
				t.Errorf("logged %d times, want 2", n.Load())
			}
		})
	}
}

// However busy the writer is when Close comes: what ended the connection is that.
func TestHTTP2CloseWhileBusy(t *testing.T) {
	for range 200 {
		s := inMemory(t, nil)
		c := dialHTTP2(t, s.Config())
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Microsecond)
					err := c.WritePushMsg(ctx, message(1))
					cancel()
					if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
						t.Errorf("push: got %v, want one that matches its deadline or net.ErrClosed", err)
					}
				}
			})
		}
		time.Sleep(100 * time.Microsecond)
		c.Close()
		wantErr(t, c.CheckForError(), net.ErrClosed)
		close(stop)
		wg.Wait()
	}
}
