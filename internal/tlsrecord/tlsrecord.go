// Package tlsrecord writes many TLS records with one system call.
//
// crypto/tls cuts what is given to Write into records of at most 16 KiB, and writes each
// one to the connection by itself. A system call costs a lot, whatever its length. A Conn
// stands between the two: it collects the records of a long write, and writes them
// together.
package tlsrecord

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
)

const (
	// MaxPayload is the size in bytes of what fits into one record. A shorter write gains
	// nothing from WriteTogether.
	MaxPayload = 16 << 10

	// headerSize is the size of a record's header. Its last two bytes are the length of
	// what follows.
	headerSize = 5
)

// A Conn is the connection under a *tls.Conn. Any number of goroutines may call its
// methods, but only one at a time may call WriteTogether.
type Conn struct {
	net.Conn

	mu         sync.Mutex // guards following
	collecting bool       // WriteTogether is running
	records    []byte     // collected and not written yet, in their order
	err        error      // of the first write of WriteTogether that failed
}

// Write writes records. While WriteTogether is running, it collects them instead, and
// does not wait for the peer.
//
// These need not be records of WriteTogether's data: crypto/tls writes an alert when the
// connection is closed, and an answer when the peer changes its key. Each record has a
// number, so they must not overtake those that were made before them.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.collecting && c.err == nil {
		c.records = append(c.records, p...)
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

// WriteTogether writes b to tls, which in turn writes its records to c, and writes the
// records together. After an error only the first n bytes of b can have reached the peer:
// those in records that were written whole, since a part of a record cannot be decrypted.
// After an error nothing more is written.
//
// It collects the records in the memory of buf, if that is large enough, and returns the
// memory that it used, for the next call.
func (c *Conn) WriteTogether(tls io.Writer, b, buf []byte) (n int, _ []byte, err error) {
	c.mu.Lock()
	c.collecting, c.records = true, buf[:0]
	c.mu.Unlock()
	n, err = tls.Write(b) // which only collects
	if records := c.take(); len(records) > 0 {
		buf = records
		written, writeErr := c.Conn.Write(records)
		if writeErr != nil {
			n, err = min(n, maxPayload(records[:written])), writeErr
			c.fail(writeErr)
		}
	}
	// Meanwhile other goroutines may have written records, which come next.
	for records := c.take(); len(records) > 0; records = c.take() {
		if _, writeErr := c.Conn.Write(records); writeErr != nil {
			err = writeErr
			c.fail(writeErr)
		}
	}
	return n, buf, err
}

// take returns the records that are to be written next. If there are none, or a write has
// failed, it ends the collecting.
func (c *Conn) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	records := c.records
	c.records = nil
	if c.err != nil {
		records = nil
	}
	c.collecting = len(records) > 0
	return records
}

func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// maxPayload returns how many bytes the whole records at the beginning of b can carry at
// most. A record that is cut off carries none.
func maxPayload(b []byte) (n int) {
	for len(b) >= headerSize {
		end := headerSize + int(binary.BigEndian.Uint16(b[headerSize-2:]))
		if end > len(b) {
			break
		}
		n += min(end-headerSize, MaxPayload) // the rest of it is overhead of TLS
		b = b[end:]
	}
	return n
}
