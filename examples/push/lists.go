package main

import (
	"context"
	"fmt"
	"os"

	"example.com/apns/examples/internal/bulk"
	"example.com/apns/examples/internal/cli"
	"example.com/apns/internal/secret"
)

// A lineFile is a file that gets lines of the list. Each is written at once, so that none is
// lost if the program is killed. A nil lineFile has no file.
type lineFile struct {
	file *os.File
	n    int   // lines
	err  error // the first one
}

// createLineFile opens the file that a flag names, to overwrite it or, with os.O_APPEND, to
// add to it. An error shows before anything is sent. It returns nil if the name is empty.
func createLineFile(flag, name string, mode int, list *bulk.Tokens) (*lineFile, error) {
	if name == "" {
		return nil, nil
	}
	// The file is not truncated here: it may be the list itself.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|mode, 0o666)
	if err != nil {
		return nil, secret.FileError(err)
	}
	if list.IsSame(f) {
		f.Close()
		return nil, cli.Usagef("%s %s is the file of -tokens, expected another one", flag, name)
	}
	if info, err := f.Stat(); mode&os.O_APPEND == 0 && err == nil && info.Mode().IsRegular() {
		if err := f.Truncate(0); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &lineFile{file: f}, nil
}

// add writes a line. After an error it does nothing, and returns the error again.
func (l *lineFile) add(token string, payload []byte) error {
	if l == nil || l.err != nil {
		return l.failure()
	}
	line := token
	if payload != nil {
		line += "\t" + string(payload)
	}
	if _, l.err = l.file.WriteString(line + "\n"); l.err == nil {
		l.n++
	}
	return l.failure()
}

// addRest adds the lines that were not read from the list, and returns their number.
func (l *lineFile) addRest(list *bulk.Tokens) (n int) {
	for line := range list.All(context.Background()) {
		l.add(line.Token, line.Payload)
		n++
	}
	return n
}

func (l *lineFile) failure() error {
	if l == nil || l.err == nil {
		return nil
	}
	return fmt.Errorf("%s is not complete: %w", l.file.Name(), l.err)
}

func (l *lineFile) close() error {
	if l == nil {
		return nil
	}
	if err := l.file.Close(); l.err == nil {
		l.err = err
	}
	return l.failure()
}
