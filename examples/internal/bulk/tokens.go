// Package bulk has what the programs share that send to a file of device tokens:
// the file itself, the line that shows how far they are, and their end by Ctrl-C.
package bulk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync/atomic"

	"example.com/apns"
)

// Tokens is a list of device tokens, one a line, that is read bit by bit. White
// space around a token, a byte order mark and blank lines mean nothing.
type Tokens struct {
	// Name is the list's in messages.
	Name string

	// Invalid is told of each line that holds something else than a token. It
	// must not be nil. It is called by whoever ranges over All.
	Invalid func(err error)

	in      io.Reader
	size    int64 // in bytes; 0 if it is not known
	entries chan entry
	err     error // what ended the list, unless its end did; set before entries is closed

	taken   atomic.Int64 // entries
	invalid atomic.Int64 // those with an error
	at      atomic.Int64 // bytes up to the last entry taken
	ended   atomic.Bool
}

// An entry is a line that is not blank.
type entry struct {
	line  int
	token string
	err   error // what is wrong with the token
	end   int64 // bytes up to here
}

// Open begins to read the list in a file, or in standard input if the name is -.
func Open(name string) (*Tokens, error) {
	if name == "-" {
		return newTokens("standard input", os.Stdin, fileSize(os.Stdin)), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a folder, expected a file of device tokens, one a line", name)
	}
	return newTokens(name, f, fileSize(f)), nil
}

// fileSize returns how much there is to read of a file, or 0 if nobody knows.
func fileSize(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	at, _ := f.Seek(0, io.SeekCurrent) // a shell may have read the first lines
	return max(0, info.Size()-at)
}

// NewTokens begins to read a list.
func NewTokens(name string, in io.Reader) *Tokens { return newTokens(name, in, 0) }

func newTokens(name string, in io.Reader, size int64) *Tokens {
	t := &Tokens{Name: name, in: in, size: size, entries: make(chan entry, 1024)}
	// A goroutine of its own, since a terminal or a pipe may block for good, and
	// Ctrl-C should not. Then it is left behind for the end of the program.
	go func() {
		defer close(t.entries)
		t.err = t.read()
	}()
	return t
}

// All yields the tokens with the numbers of their lines until the list ends, or ctx
// does. To range over All again goes on from there.
func (t *Tokens) All(ctx context.Context) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for ctx.Err() == nil {
			select {
			case e, ok := <-t.entries:
				if !ok {
					t.ended.Store(true)
					return
				}
				t.at.Store(e.end)
				t.taken.Add(1)
				if e.err != nil {
					t.invalid.Add(1)
					t.Invalid(fmt.Errorf("%s:%d: %w", t.Name, e.line, e.err))
				} else if !yield(e.line, e.token) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// Ended reports whether All has come to the end of the list.
func (t *Tokens) Ended() bool { return t.ended.Load() }

// Err returns the error that was the end of the list, if it has Ended that way.
func (t *Tokens) Err() error {
	if !t.Ended() {
		return nil
	}
	return t.err
}

// InvalidLines returns how many lines there were so far for Invalid.
func (t *Tokens) InvalidLines() int { return int(t.invalid.Load()) }

// IsTerminal reports whether the list is being typed.
func (t *Tokens) IsTerminal() bool {
	f, ok := t.in.(*os.File)
	return ok && IsTerminal(f)
}

// IsSame reports whether a file is the one that the list is in.
func (t *Tokens) IsSame(f *os.File) bool {
	in, ok := t.in.(*os.File)
	if !ok {
		return false
	}
	a, err := in.Stat()
	b, err2 := f.Stat()
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// total estimates how many entries the whole list has. It returns 0 if nobody
// knows.
func (t *Tokens) total() (n int64, exact bool) {
	taken, at := t.taken.Load(), t.at.Load()
	switch {
	case t.Ended():
		return taken, true
	case t.size <= 0 || at <= 0:
		return 0, false
	}
	return int64(float64(taken) * max(1, float64(t.size)/float64(at))), false
}

var errLongLine = errors.New("line is too long")

// read reads the list to its end.
func (t *Tokens) read() error {
	r := bufio.NewReaderSize(t.in, 64<<10)
	var end int64
	for number := 1; ; number++ {
		line, size, err := readLine(r)
		end += size
		if err != nil && err != io.EOF && err != errLongLine {
			return fmt.Errorf("reading %s after %d lines: %w", t.Name, number-1, err)
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff"))
		}
		switch line = bytes.TrimSpace(line); {
		case err == errLongLine:
			t.entries <- entry{number, "", fmt.Errorf("line has %d bytes, expected a token of at most %d hexadecimal digits", size, 2*apns.MaxTokenSize), end}
		case len(line) > 0:
			token := string(line)
			t.entries <- entry{number, token, check(token), end}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine returns the next line and its size; none of one that does not fit into
// the buffer, with errLongLine. The last one comes with io.EOF.
func readLine(r *bufio.Reader) (line []byte, size int64, err error) {
	line, err = r.ReadSlice('\n')
	size = int64(len(line))
	if err != bufio.ErrBufferFull {
		return line, size, err
	}
	for err == bufio.ErrBufferFull {
		line, err = r.ReadSlice('\n')
		size += int64(len(line))
	}
	if err != nil && err != io.EOF {
		return nil, size, err
	}
	return nil, size, errLongLine // if it was the last, what comes is io.EOF
}

// check says what is wrong with a token, in the words of the package.
func check(token string) error {
	_, err := apns.BuildMsg(&apns.Message{Token: token, Payload: []byte("{}")})
	if err != nil {
		return errors.New(Plain(err))
	}
	return nil
}

// Plain is an error's text without the name of the package.
func Plain(err error) string { return strings.TrimPrefix(err.Error(), "apns: ") }

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
