package apns

import (
	"encoding/binary"
	"net"
	"sync"
)

// A recordConn is a connection under TLS. It can hold the records back that TLS
// makes of a long write, which are many, to write them all at once: for the system
// a write is a lot of work, whatever its length.
type recordConn struct {
	net.Conn

	mu   sync.Mutex // protects following
	busy bool       // somebody is in writeTogether
	held []byte     // records, in their order
	err  error      // that ended the writing
}

const (
	// maxRecord is how much goes into a TLS record.
	maxRecord = 16 << 10
	// recordHeader is the length of a record's header, which ends with that of
	// what follows.
	recordHeader = 5
)

// Write writes a record, or holds it back.
func (c *recordConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.busy && c.err == nil {
		// Others than those of writeTogether have their places among them: the
		// alert of a Close, the answer to a new key. They do not wait for the peer.
		c.held = append(c.held, p...)
		c.mu.Unlock()
		return len(p), nil
	}
	err := c.err
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// writeTogether writes b through tls, which writes to c. If it fails, what is after
// the first n bytes cannot be read by the server. The memory of scratch is used, and
// returned to be used again.
func (c *recordConn) writeTogether(tls net.Conn, b, scratch []byte) (n int, _ []byte, err error) {
	c.mu.Lock()
	c.busy, c.held = true, scratch[:0]
	c.mu.Unlock()
	n, err = tls.Write(b)
	sent := 0
	for first := true; ; first = false {
		c.mu.Lock()
		records := c.held
		if len(records) == 0 || c.err != nil {
			c.busy, c.held = false, nil
			c.mu.Unlock()
			return n, scratch, err
		}
		c.held = nil
		c.mu.Unlock()
		k, writeErr := c.Conn.Write(records)
		if first {
			scratch = records
			sent = min(n, inWholeRecords(records[:k]))
		}
		if writeErr != nil {
			c.mu.Lock()
			c.err = writeErr
			c.mu.Unlock()
			n, err = sent, writeErr
		}
	}
}

// inWholeRecords returns how much there can be in the records from the first byte
// on, without one that is cut off.
func inWholeRecords(b []byte) (n int) {
	for len(b) >= recordHeader {
		end := recordHeader + int(binary.BigEndian.Uint16(b[recordHeader-2:]))
		if end > len(b) {
			break
		}
		n += min(end-recordHeader, maxRecord) // the rest of it is TLS's
		b = b[end:]
	}
	return n
}
