package apnstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"example.com/apns"
)

// A Record says what the server did with a message.
type Record struct {
	Message *apns.Message
	Outcome Outcome
	Err     error // that of the handler, or of the server's own checks
	Conn    int   // the connection that the message came on, counted from 1
}

// An Outcome is what the server did with a message.
type Outcome int

const (
	Accepted  Outcome = iota // the server accepted it
	Rejected                 // the server rejected it
	Discarded                // the server ignored it: it came after the stream had ended, or a Fault ended the stream at it
)

// String returns, for example, "accepted".
func (o Outcome) String() string {
	switch o {
	case Accepted:
		return "accepted"
	case Rejected:
		return "rejected"
	case Discarded:
		return "discarded"
	}
	return "Outcome(" + strconv.Itoa(int(o)) + ")"
}

// Records returns what the server has done with each message so far, in the order in
// which it read them. Barriers are not recorded: see the field Barrier.
func (s *Server) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.records)
}

// Messages returns the messages of Records that have the outcome.
func (s *Server) Messages(o Outcome) []*apns.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ms []*apns.Message
	for _, r := range s.records {
		if r.Outcome == o {
			ms = append(ms, r.Message)
		}
	}
	return ms
}

// Wait waits until the server has recorded n messages. It returns an error if ctx ends
// or the server is closed before that.
func (s *Server) Wait(ctx context.Context, n int) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.records) < n {
		err := ctx.Err()
		if s.closed {
			err = errors.New("server closed")
		}
		if err != nil {
			return fmt.Errorf("apnstest: %d messages recorded, expected %d: %w", len(s.records), n, err)
		}
		s.changed.Wait()
	}
	return nil
}

func (s *Server) record(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, r)
	s.changed.Broadcast()
}
