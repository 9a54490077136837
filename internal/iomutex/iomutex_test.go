package iomutex_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns/internal/iomutex"
)

// A deadlines is a connection's deadline, and all that were set.
type deadlines struct {
	conn net.Conn // may be nil

	mu  sync.Mutex // guards following
	set []time.Time
}

func (d *deadlines) setRead(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.set = append(d.set, t)
	if d.conn != nil {
		d.conn.SetReadDeadline(t)
	}
}

// want checks which deadlines were set: true stands for one that has passed, false for
// none.
func (d *deadlines) want(t *testing.T, want ...bool) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var got []bool
	for _, at := range d.set {
		if !at.IsZero() && at.After(time.Now()) {
			t.Errorf("deadline %v is in the future", at)
		}
		got = append(got, !at.IsZero())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got the deadlines %v, want %v", got, want)
	}
}

// pipe returns a connection with the mutex for reading it, and its other end.
func pipe(t *testing.T) (client, server net.Conn, m *iomutex.Mutex, d *deadlines) {
	client, server = net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	d = &deadlines{conn: client}
	return client, server, iomutex.New(d.setRead), d
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// read reads a byte between Start and Stop.
func read(ctx context.Context, m *iomutex.Mutex, c net.Conn) error {
	if err := m.Start(ctx); err != nil {
		return err
	}
	defer m.Stop()
	_, err := c.Read(make([]byte, 1))
	return err
}

// Whoever waits for the mutex gets it when it is unlocked, or an error when the context
// ends or the channel is closed.
func TestLockWaits(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(m *iomutex.Mutex, cancel func(), done chan struct{})
		want error
	}{
		"unlocked":  {func(m *iomutex.Mutex, _ func(), _ chan struct{}) { m.Unlock() }, nil},
		"cancelled": {func(_ *iomutex.Mutex, cancel func(), _ chan struct{}) { cancel() }, context.Canceled},
		"timeout":   {func(*iomutex.Mutex, func(), chan struct{}) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
		"closed":    {func(_ *iomutex.Mutex, _ func(), done chan struct{}) { close(done) }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := iomutex.New(func(time.Time) { t.Error("a deadline is set") })
				done := make(chan struct{})
				if err := m.Lock(t.Context(), done); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				result := make(chan error, 1)
				go func() { result <- m.Lock(ctx, done) }()
				synctest.Wait()
				select {
				case err := <-result:
					t.Fatalf("Lock returned %v while the mutex was locked", err)
				default:
				}
				test.end(m, cancel, done)
				if err := <-result; err != test.want {
					t.Errorf("got %v, want %v", err, test.want)
				}
			})
		})
	}
}

// A free mutex is locked whatever has ended. Start then looks at the context.
func TestLockFree(t *testing.T) {
	var d deadlines
	m := iomutex.New(d.setRead)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan struct{})
	close(done)
	for range 100 { // a choice at random would show
		if err := m.Lock(ctx, done); err != nil {
			t.Fatal(err)
		}
		wantErr(t, m.Start(ctx), context.Canceled)
		m.Unlock()
	}
}

func TestMutualExclusion(t *testing.T) {
	m := iomutex.New(func(time.Time) {})
	n := 0 // the race detector watches it
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 1000 {
				if err := m.Lock(context.Background(), nil); err != nil {
					t.Error(err)
				}
				n++
				m.Unlock()
			}
		})
	}
	wg.Wait()
	if n != 10_000 {
		t.Errorf("counted %d, want 10000", n)
	}
}

// A context that ends before the I/O prevents it, and leaves no deadline.
func TestContextEndsBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, m, d := pipe(t)
		ctx, cancel := context.WithCancel(t.Context())
		go server.Write([]byte("ab"))
		if err := read(ctx, m, client); err != nil { // so that ctx is watched
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		d.want(t)
		for range 2 {
			wantErr(t, read(ctx, m, client), context.Canceled)
		}
		d.want(t)
		if err := read(t.Context(), m, client); err != nil {
			t.Errorf("got %v, want the next byte", err)
		}
	})
}

// A context that ends during the I/O interrupts it. The next I/O has no deadline.
func TestContextEndsDuring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, m, d := pipe(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		wantErr(t, read(ctx, m, client), os.ErrDeadlineExceeded)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v, want the context's minute", took)
		}
		d.want(t, true, false)
		wantErr(t, read(ctx, m, client), context.DeadlineExceeded)
		go func() {
			time.Sleep(time.Hour)
			server.Write([]byte("a"))
		}()
		if err := read(t.Context(), m, client); err != nil {
			t.Errorf("got %v, want a byte", err)
		}
		d.want(t, true, false)
	})
}

// A context that ends after the I/O does nothing, whether it is still watched or another
// one is.
func TestContextEndsAfter(t *testing.T) {
	for _, another := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			client, server, m, d := pipe(t)
			ctx, cancel := context.WithCancel(t.Context())
			go server.Write([]byte("a"))
			if err := read(ctx, m, client); err != nil {
				t.Fatal(err)
			}
			next := context.Background()
			if another {
				next = t.Context()
			}
			result := make(chan error, 1)
			go func() { result <- read(next, m, client) }()
			synctest.Wait()
			cancel()
			synctest.Wait()
			d.want(t)
			server.Write([]byte("b"))
			if err := <-result; err != nil {
				t.Errorf("got %v, want a byte", err)
			}
		})
	}
}

// A watchedContext counts who watches it. For that it hides what it embeds, or else
// context.AfterFunc would not call its AfterFunc.
type watchedContext struct {
	context.Context
	watched int
}

func (c *watchedContext) Value(any) any { return nil }

func (c *watchedContext) AfterFunc(f func()) func() bool {
	c.watched++
	stop := context.AfterFunc(c.Context, f)
	return func() bool {
		c.watched--
		return stop()
	}
}

// The mutex watches the context of the last Start, and none after Close.
func TestWatchesTheLastContext(t *testing.T) {
	var d deadlines
	m := iomutex.New(d.setRead)
	use := func(c context.Context) {
		t.Helper()
		if err := m.Start(c); err != nil {
			t.Error(err)
		}
		m.Stop()
	}
	contexts := [2]*watchedContext{}
	for i := range contexts {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		contexts[i] = &watchedContext{Context: ctx}
	}
	want := func(want ...int) {
		t.Helper()
		if got := []int{contexts[0].watched, contexts[1].watched}; !slices.Equal(got, want) {
			t.Errorf("watched %v times, want %v", got, want)
		}
	}
	for range 3 {
		use(contexts[0])
		use(context.Background())
		want(1, 0)
	}
	use(contexts[1])
	want(0, 1)
	for range 2 {
		m.Close()
		want(0, 0)
	}
	use(contexts[0])
	want(1, 0)
	m.Close()
	want(0, 0)
}

// Close waits for whoever has locked the mutex.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := iomutex.New(func(time.Time) {})
		if err := m.Lock(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		closed := false
		go func() {
			m.Close()
			closed = true
		}()
		synctest.Wait()
		if closed {
			t.Error("closed while the mutex was locked")
		}
		m.Unlock()
		synctest.Wait()
		if !closed {
			t.Error("not closed, although the mutex was unlocked")
		}
	})
}

// A connection without deadlines is interrupted by what the caller does instead.
func TestWithoutDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer server.Close()
		m := iomutex.New(func(at time.Time) {
			if !at.IsZero() {
				client.Close()
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		wantErr(t, read(ctx, m, client), io.ErrClosedPipe)
	})
}

func TestAllocations(t *testing.T) {
	m := iomutex.New(func(time.Time) {})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"Background": context.Background(), "the same context": ctx} {
		if n := testing.AllocsPerRun(100, func() {
			if m.Lock(ctx, nil) != nil || m.Start(ctx) != nil {
				t.Error("want no error")
			}
			m.Stop()
			m.Unlock()
		}); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
}

// Contexts end at any moment, on all processors. Each read has a byte or fails because of
// its own context, and no deadline stays behind.
func TestContextsAtRandom(t *testing.T) {
	client, server, m, _ := pipe(t)
	go func() {
		for {
			if _, err := server.Write([]byte{0}); err != nil {
				return
			}
			if rand.N(4) == 0 {
				time.Sleep(rand.N(20 * time.Microsecond))
			}
		}
	}()
	var wg sync.WaitGroup
	var ended, bytes [4]int
	for i := range ended {
		wg.Go(func() {
			for range 2000 {
				ctx, cancel := context.WithTimeout(context.Background(), rand.N(20*time.Microsecond))
				err := m.Lock(ctx, nil)
				if err == nil {
					for range rand.N(3) {
						if err = read(ctx, m, client); err == nil {
							bytes[i]++
						}
					}
					m.Unlock()
				}
				if err != nil {
					ended[i]++
					if ctx.Err() == nil {
						t.Errorf("%v, while the context goes on", err)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
	m.Close()
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Errorf("a deadline has stayed: %v", err)
	}
	t.Logf("ended %v, bytes %v", ended, bytes)
}
