package main

import (
	"bufio"
	"context"
	"fmt"
	"os"

	"example.com/apns/examples/internal/bulk"
	"example.com/apns/internal/secret"
)

// A retryWriter writes the tokens to try again to a file. A nil retryWriter has no file.
type retryWriter struct {
	file *os.File
	w    *bufio.Writer // keeps a write error until close
	n    int           // tokens
}

// createRetry creates the file. An error shows before anything is sent. It returns nil if
// the name is empty.
func createRetry(name string, list *bulk.Tokens) (*retryWriter, error) {
	if name == "" {
		return nil, nil
	}
	// The file is not truncated here: it may be the list itself.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return nil, secret.FileError(err)
	}
	if list.IsSame(f) {
		f.Close()
		return nil, usageError(fmt.Sprintf("-retry-file %s is the file of -tokens, expected another one", name))
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		if err := f.Truncate(0); err != nil {
			f.Close()
			return nil, err
		}
	}
	return &retryWriter{file: f, w: bufio.NewWriter(f)}, nil
}

func (r *retryWriter) add(token string) {
	if r != nil {
		fmt.Fprintln(r.w, token)
		r.n++
	}
}

// addRest adds the tokens that were not read from the list, and returns their number.
func (r *retryWriter) addRest(list *bulk.Tokens) (n int) {
	r.w.Flush() // the list may be a slow pipe, and the user may kill the program first
	for _, token := range list.All(context.Background()) {
		r.add(token)
		n++
	}
	return n
}

func (r *retryWriter) close() error {
	if r == nil {
		return nil
	}
	err := r.w.Flush()
	if closeErr := r.file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s is not complete, tokens to try again are missing: %w", r.file.Name(), err)
	}
	return nil
}
