// Package bulk is shared by the programs that send to a list of device tokens. It reads the
// list, shows the progress, counts the outcomes and handles Ctrl-C.
package bulk

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"sync/atomic"

	"example.com/apns"
	"example.com/apns/internal/secret"
)

// Tokens is a list of device tokens, one per line, that is read in pieces. After the token a
// line may have a tab and a payload. White space around a token, a byte order mark and blank
// lines are ignored, and so is a line that is the same as one before it.
type Tokens struct {
	// Name is the name of the list in error messages.
	Name string

	// Invalid is called for each line that is neither blank nor a token, by the goroutine
	// that ranges over All. It must not be nil.
	Invalid func(line int, err error)

	// Duplicates yields a line as often as it is in the list.
	Duplicates bool

	// NeedPayload makes a line without a payload invalid.
	NeedPayload bool

	// IsBinary makes a token of more than apns.MaxTokenSize bytes invalid: it is too long for
	// the binary protocol. Over HTTP/2 a token may have maxTokenSize bytes.
	IsBinary bool

	in      io.Reader
	size    int64 // of the list in bytes; 0: not known
	entries chan entry
	err     error // the error that ended the list, or nil; set before entries is closed

	taken   atomic.Int64 // entries that All has received
	invalid atomic.Int64 // entries of taken with an error
	skipped atomic.Int64 // entries of taken that were there before
	at      atomic.Int64 // bytes of the list up to the last entry of taken
	ended   atomic.Bool

	seen map[[16]byte]struct{} // the beginning of a line's SHA-256, to save memory; used by All
}

// A Line is a line with a device token.
type Line struct {
	Number  int // counted from 1
	Token   string
	Payload []byte // a JSON object, or nil if the line has only a token
}

// An entry is a line that is not blank.
type entry struct {
	Line
	err error // what is wrong with the line
	end int64 // bytes of the list up to the end of the line
}

// Open starts to read the list in a file, or in standard input if the name is -.
func Open(name string) (*Tokens, error) {
	if name == "-" {
		return newTokens("standard input", os.Stdin, fileSize(os.Stdin)), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, secret.FileError(err) // the name may be a token
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s is a folder, expected a file of device tokens, one a line", name)
	}
	return newTokens(name, f, fileSize(f)), nil
}

// fileSize returns how many bytes of a file remain to be read, or 0 if that is not known.
func fileSize(f *os.File) int64 {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	at, _ := f.Seek(0, io.SeekCurrent) // a shell may have read the first lines
	return max(0, info.Size()-at)
}

// NewTokens starts to read a list.
func NewTokens(name string, in io.Reader) *Tokens { return newTokens(name, in, 0) }

func newTokens(name string, in io.Reader, size int64) *Tokens {
	t := &Tokens{Name: name, in: in, size: size, entries: make(chan entry, 1024), seen: make(map[[16]byte]struct{})}
	// A terminal or a pipe may block forever. So a goroutine reads, and does not delay the
	// program's end after Ctrl-C.
	go func() {
		defer close(t.entries)
		t.err = t.read()
	}()
	return t
}

// All yields lines until the list or ctx ends. A second loop over All continues where the
// first one ended.
func (t *Tokens) All(ctx context.Context) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for ctx.Err() == nil {
			select {
			case e, ok := <-t.entries:
				if !ok {
					t.ended.Store(true)
					return
				}
				t.at.Store(e.end)
				t.taken.Add(1)
				if t.IsBinary && e.Token != "" {
					e.err = cmp.Or(checkBinary(e.Token), e.err)
				}
				if e.err == nil && t.NeedPayload && e.Payload == nil {
					e.err = errors.New("line has only a token, and there is no alert text: expected a tab and a payload after the token")
				}
				switch {
				case e.err != nil:
					t.invalid.Add(1)
					t.Invalid(e.Number, e.err)
				case !t.Duplicates && t.isDuplicate(e.Line):
					t.skipped.Add(1)
				case !yield(e.Line):
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// isDuplicate reports whether an earlier line had the same token and the same payload.
func (t *Tokens) isDuplicate(l Line) bool {
	sum := sha256.Sum256(append([]byte(strings.ToLower(l.Token)+"\t"), l.Payload...))
	key := [16]byte(sum[:16])
	_, seen := t.seen[key]
	t.seen[key] = struct{}{}
	return seen
}

// Ended reports whether All has reached the end of the list.
func (t *Tokens) Ended() bool { return t.ended.Load() }

// Err returns the error that ended the list, if it has Ended with one.
func (t *Tokens) Err() error {
	if !t.Ended() {
		return nil
	}
	return t.err
}

// InvalidLines returns how often Invalid was called.
func (t *Tokens) InvalidLines() int { return int(t.invalid.Load()) }

// Skipped returns how many lines were skipped, because they were in the list before.
func (t *Tokens) Skipped() int { return int(t.skipped.Load()) }

// IsTerminal reports whether the list comes from a terminal.
func (t *Tokens) IsTerminal() bool {
	f, ok := t.in.(*os.File)
	return ok && IsTerminal(f)
}

// IsSame reports whether f is the file that has the list.
func (t *Tokens) IsSame(f *os.File) bool {
	in, ok := t.in.(*os.File)
	if !ok {
		return false
	}
	a, err := in.Stat()
	b, err2 := f.Stat()
	return err == nil && err2 == nil && os.SameFile(a, b)
}

// total estimates how many entries the whole list has. It returns 0 if that is not known.
// The number is exact once the list has ended.
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
		e := entry{Line: Line{Number: number}, end: end}
		switch line = bytes.TrimSpace(line); {
		case err == errLongLine:
			e.err = fmt.Errorf("line has %d bytes, expected a device token, or one with a payload after a tab", size)
			t.entries <- e
		case len(line) > 0:
			token, payload, _ := bytes.Cut(line, []byte("\t"))
			e.Token = string(bytes.TrimSpace(token))
			if payload = bytes.TrimSpace(payload); len(payload) > 0 {
				e.Payload = bytes.Clone(payload)
			}
			e.err = check(e.Line)
			t.entries <- e
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine returns the next line and its size in bytes. The last line comes with io.EOF. For
// a line that does not fit into the buffer it returns no line, and errLongLine.
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
	return nil, size, errLongLine // if it was the last line, the next call returns io.EOF
}

// maxTokenSize is the size in bytes of the longest token that package apns sends: see
// apns.Message.Token.
const maxTokenSize = 2048

// check returns what is wrong with a line over HTTP/2, or nil.
func check(l Line) error {
	err := checkBinary(l.Token)
	if n := len(l.Token); errors.Is(err, apns.StatusInvalidTokenSize) { // all is hexadecimal
		switch {
		case n > 2*maxTokenSize:
			err = fmt.Errorf("token has %d characters, expected at most %d hexadecimal digits", n, 2*maxTokenSize)
		case n%2 != 0:
			err = fmt.Errorf("token has %d characters, expected an even number of hexadecimal digits", n)
		default:
			err = nil
		}
	}
	if err == nil && l.Payload != nil {
		return CheckPayload(l.Payload)
	}
	return err
}

// checkBinary returns what is wrong with a token on the binary protocol, or nil.
func checkBinary(token string) error {
	_, err := apns.BuildMsg(&apns.Message{Token: token, Payload: []byte("{}")})
	if err != nil {
		return plainError{err}
	}
	return nil
}

// A plainError is an error with the text of Plain.
type plainError struct{ err error }

func (e plainError) Error() string { return Plain(e.err) }
func (e plainError) Unwrap() error { return e.err }

// CheckPayload returns an error unless the payload is a JSON object.
func CheckPayload(payload []byte) error {
	var object map[string]json.RawMessage
	err := json.Unmarshal(payload, &object)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("payload is not JSON, at byte %d: %w", syntax.Offset, err)
	}
	if object == nil {
		return errors.New(`payload is not a JSON object, expected {"aps":...}`)
	}
	return nil
}

// Plain returns the text of an error without the prefix "apns: ".
func Plain(err error) string { return strings.TrimPrefix(err.Error(), "apns: ") }

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
