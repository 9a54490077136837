package tlsrecord_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"example.com/apns/internal/tlsrecord"
)

// A peer is a TLS connection in memory, with a tlsrecord.Conn under the client.
type peer struct {
	raw     *cutConn // under records
	records *tlsrecord.Conn
	client  *tls.Conn
	server  *tls.Conn
}

func newPeer(t *testing.T, version uint16) *peer {
	t.Helper()
	client, server := net.Pipe()
	p := &peer{raw: &cutConn{Conn: client, left: -1}}
	p.records = &tlsrecord.Conn{Conn: p.raw}
	// The records have their full size from the first one on.
	p.client = tls.Client(p.records, &tls.Config{InsecureSkipVerify: true, MaxVersion: version, DynamicRecordSizingDisabled: true})
	p.server = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{certificate(t)}})
	t.Cleanup(func() { client.Close(); server.Close() })
	shaken := make(chan error, 1)
	go func() { shaken <- p.server.Handshake() }()
	if err := p.client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	p.raw.reset(-1)
	return p
}

// certificate makes one that is valid in a synctest bubble too.
func certificate(t *testing.T) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A cutConn counts its writes, and is cut after a number of bytes.
type cutConn struct {
	net.Conn

	mu     sync.Mutex // guards following
	left   int        // bytes until the cut; negative: any number
	writes int
	bytes  int
}

func (c *cutConn) reset(left int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left, c.writes, c.bytes = left, 0, 0
}

// counts returns the number of writes and of bytes since the last reset.
func (c *cutConn) counts() (writes, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, c.bytes
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	left := c.left
	c.writes++
	c.mu.Unlock()
	if left < 0 || left >= len(p) {
		n, err := c.Conn.Write(p)
		c.mu.Lock()
		c.bytes += n
		if left >= 0 {
			c.left -= n
		}
		c.mu.Unlock()
		return n, err
	}
	n, _ := c.Conn.Write(p[:left])
	c.Conn.Close()
	return n, syscall.EPIPE
}

// A received is what a server has read, up to the error that ended it.
type received struct {
	b   []byte
	err error
}

// readAll reads what the server receives, until an error. It reads nothing before delay
// is over.
func (p *peer) readAll(delay time.Duration) chan received {
	result := make(chan received, 1)
	go func() {
		time.Sleep(delay)
		var r received
		buf := make([]byte, 64<<10)
		for r.err == nil {
			var n int
			n, r.err = p.server.Read(buf)
			r.b = append(r.b, buf[:n]...)
		}
		result <- r
	}()
	return result
}

// data returns n bytes, each of which tells where it is.
func data(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// However long the data is, there is one write, and the server reads what was written.
func TestOneWrite(t *testing.T) {
	for _, version := range versions {
		p := newPeer(t, version)
		result := p.readAll(0)
		var want, buf []byte
		for _, size := range []int{0, 1, tlsrecord.MaxPayload - 1, tlsrecord.MaxPayload, tlsrecord.MaxPayload + 1, 100_000, 3} {
			p.raw.reset(-1)
			b := data(size)
			n, got, err := p.records.WriteTogether(p.client, b, buf)
			if err != nil || n != size {
				t.Errorf("%d bytes: got %d, %v", size, n, err)
			}
			buf = got
			want = append(want, b...)
			if writes, _ := p.raw.counts(); writes > 1 {
				t.Errorf("%d bytes took %d writes, want 1", size, writes)
			}
		}
		// Without WriteTogether there is a write for each record.
		p.raw.reset(-1)
		b := data(100_000)
		if _, err := p.client.Write(b); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...)
		if writes, _ := p.raw.counts(); writes != 7 {
			t.Errorf("Write took %d writes, want 7: the test shows nothing", writes)
		}
		p.client.Close()
		if got := <-result; got.err != io.EOF || !bytes.Equal(got.b, want) {
			t.Errorf("server read %d bytes, %v; want %d", len(got.b), got.err, len(want))
		}
	}
}

// The memory that is returned serves the next call.
func TestMemoryIsReused(t *testing.T) {
	p := newPeer(t, tls.VersionTLS13)
	p.readAll(0)
	b := data(50_000)
	_, buf, err := p.records.WriteTogether(p.client, b, nil)
	if err != nil || cap(buf) < len(b) {
		t.Fatalf("got %d bytes of memory, %v; want enough for %d", cap(buf), err, len(b))
	}
	_, again, err := p.records.WriteTogether(p.client, b, buf)
	if err != nil || &again[0] != &buf[0] {
		t.Errorf("the second call did not use the memory of the first (%v)", err)
	}
	// A call that collects nothing returns it as well.
	p.client.CloseWrite()
	if _, again, err = p.records.WriteTogether(p.client, b, again); err == nil || cap(again) < len(b) {
		t.Errorf("got %d bytes of memory, %v; want those that were given, and an error", cap(again), err)
	}
}

// The connection is cut at, before and after the end of each record, and within it. The
// server reads whole records, and WriteTogether returns where they end: exactly, but for
// the overhead of a last, shorter record.
func TestCut(t *testing.T) {
	const size = 3*tlsrecord.MaxPayload + 1000
	for _, version := range versions {
		whole := newPeer(t, version)
		whole.readAll(0)
		if _, _, err := whole.records.WriteTogether(whole.client, data(size), nil); err != nil {
			t.Fatal(err)
		}
		_, total := whole.raw.counts()
		overhead := (total - size) / 4 // of a record
		if (total-size)%4 != 0 {
			t.Fatalf("%d bytes became %d: want 4 records", size, total)
		}
		cuts := []int{0, 1, 4, 5, 6, total - 1, total}
		for i := 1; i <= 3; i++ {
			end := i * (tlsrecord.MaxPayload + overhead)
			cuts = append(cuts, end-overhead, end-1, end, end+1, end+5, end+tlsrecord.MaxPayload/2)
		}
		for _, cut := range slices.Compact(slices.Sorted(slices.Values(cuts))) {
			if cut > total {
				continue
			}
			p := newPeer(t, version)
			result := p.readAll(0)
			p.raw.reset(cut)
			n, _, err := p.records.WriteTogether(p.client, data(size), nil)
			if cut < total {
				if err != syscall.EPIPE {
					t.Errorf("cut at %d: got the error %v, want %v", cut, err, syscall.EPIPE)
				}
				if writes, _ := p.raw.counts(); writes != 1 {
					t.Errorf("cut at %d: %d writes, want 1", cut, writes)
				}
			} else if err != nil {
				t.Error(err)
			}
			want := min(size, cut/(tlsrecord.MaxPayload+overhead)*tlsrecord.MaxPayload)
			if cut == total {
				want = size
			}
			if n != want {
				t.Errorf("cut at %d: got %d, want %d", cut, n, want)
			}
			p.raw.Close()
			if got := <-result; !bytes.Equal(got.b, data(size)[:want]) {
				t.Errorf("cut at %d: server read %d bytes, want %d", cut, len(got.b), want)
			}
		}
	}
}

// Nothing is written after a write that has failed.
func TestNothingAfterFailure(t *testing.T) {
	p := newPeer(t, tls.VersionTLS13)
	p.readAll(0)
	p.raw.reset(100)
	if _, _, err := p.records.WriteTogether(p.client, data(50_000), nil); err != syscall.EPIPE {
		t.Fatal(err)
	}
	p.raw.reset(-1)
	if n, err := p.records.Write([]byte("x")); n != 0 || err != syscall.EPIPE {
		t.Errorf("Write: got %d, %v; want 0, %v", n, err, syscall.EPIPE)
	}
	if n, _, err := p.records.WriteTogether(p.client, data(50_000), nil); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("WriteTogether: got %d, %v; want 0, %v", n, err, syscall.EPIPE)
	}
	if writes, _ := p.raw.counts(); writes != 0 {
		t.Errorf("%d writes after one has failed, want none", writes)
	}
}

// While WriteTogether waits for a server that does not read, others write without waiting.
// Their records come after its own, and are written before it returns.
func TestServerReadsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, tls.VersionTLS13)
		result := p.readAll(time.Minute)
		start := time.Now()
		written := make(chan error, 1)
		go func() {
			n, _, err := p.records.WriteTogether(p.client, data(50_000), nil)
			if n != 50_000 {
				t.Errorf("got %d, want 50000", n)
			}
			written <- err
		}()
		synctest.Wait()
		if n, err := p.client.Write([]byte("more")); n != 4 || err != nil {
			t.Errorf("Write: got %d, %v; want 4, nil", n, err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v for the server", took)
		}
		if err := <-written; err != nil || time.Since(start) != time.Minute {
			t.Errorf("WriteTogether: %v after %v, want nil after a minute", err, time.Since(start))
		}
		p.client.Close()
		want := append(data(50_000), "more"...)
		if got := <-result; got.err != io.EOF || !bytes.Equal(got.b, want) {
			t.Errorf("server read %d bytes, %v; want %d, %v", len(got.b), got.err, len(want), io.EOF)
		}
	})
}

// A deadline and a Close end the wait for a server that does not read. What others have
// written meanwhile is not written.
func TestServerDoesNotRead(t *testing.T) {
	for name, test := range map[string]struct {
		interrupt func(p *peer)
		want      error
	}{
		"deadline": {func(p *peer) { p.client.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"closed":   {func(p *peer) { p.raw.Close() }, io.ErrClosedPipe},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t, tls.VersionTLS13)
				written := make(chan error, 1)
				go func() {
					n, _, err := p.records.WriteTogether(p.client, data(50_000), nil)
					if n != 0 {
						t.Errorf("got %d, want 0", n)
					}
					written <- err
				}()
				synctest.Wait()
				if _, err := p.client.Write([]byte("more")); err != nil {
					t.Errorf("Write: %v", err)
				}
				test.interrupt(p)
				if err := <-written; !errors.Is(err, test.want) {
					t.Errorf("got %v, want %v", err, test.want)
				}
				if writes, bytes := p.raw.counts(); writes != 1 || bytes != 0 {
					t.Errorf("%d writes of %d bytes, want 1 of 0", writes, bytes)
				}
			})
		})
	}
}

// A failure to write what others have written is one of the connection: it is returned,
// and all of the data can have reached the server.
func TestCutAfterTheData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t, tls.VersionTLS13)
		written := make(chan error, 1)
		go func() {
			n, _, err := p.records.WriteTogether(p.client, data(20_000), nil)
			if n != 20_000 {
				t.Errorf("got %d, want 20000", n)
			}
			written <- err
		}()
		synctest.Wait()
		if _, err := p.client.Write([]byte("more")); err != nil {
			t.Fatal(err)
		}
		p.raw.reset(1) // the write that waits is not subject to that
		result := p.readAll(0)
		if err := <-written; err != syscall.EPIPE {
			t.Errorf("got %v, want %v", err, syscall.EPIPE)
		}
		if got := <-result; !bytes.Equal(got.b, data(20_000)) {
			t.Errorf("server read %d bytes, want 20000", len(got.b))
		}
	})
}
