package apnstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/apns"
)

// A Record says what the server did with a message. It shares the Message with the handler.
type Record struct {
	// Number counts the records from 1, in the order in which the server read the messages.
	// ClearRecords begins again.
	Number int

	// Message is the message, with the fields that the client sent.
	Message *apns.Message

	// Outcome is what the server did with the message.
	Outcome Outcome

	// Err is the error of the handler, or of the server's own checks.
	Err error

	// Findings are the rules of Apple's that the message breaks: see Check. It is empty for
	// a message that was discarded, or rejected before its content was checked.
	Findings []Finding

	// Conn is the number of the connection that the message came on, counted from 1.
	Conn int

	// Port is the port of the service that the message came to: apns.ProviderPort over
	// HTTP/2, apns.PushPort on the binary protocol.
	Port int

	// Time is when the message was recorded: after the handler has returned, and before the
	// answer is sent.
	Time time.Time

	// Delay is how long after Time the server answers: Server.Latency and Fault.Delay
	// together. It is zero on the binary protocol if the message is accepted or discarded,
	// since nothing answers it.
	Delay time.Duration

	// Header is the header of the request in the order in which the client sent it, if
	// Server.KeepRaw is set. The value of the authorization field is left out, since it is a
	// credential. It is nil on the binary protocol.
	Header []HeaderField

	// Encoded is the message as the client encoded it, if Server.KeepRaw is set. It is nil
	// over HTTP/2.
	Encoded []byte
}

// A HeaderField is a field of the header of an HTTP/2 request. The name is in lower case. That
// of a pseudo-header field, such as :path, begins with a colon.
type HeaderField struct{ Name, Value string }

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

// defaultMaxRecords is the default of Server.MaxRecords.
const defaultMaxRecords = 100_000

// A recordList has the latest records, and counts all.
type recordList struct {
	kept   []Record // at most Server.MaxRecords; in a full list, oldest is the index of the oldest
	oldest int
	counts [Discarded + 1]int // of all records, by outcome
}

func (l *recordList) total() int {
	n := 0
	for _, c := range l.counts {
		n += c
	}
	return n
}

// add numbers a record and adds it. If there are limit records, the oldest is dropped.
func (l *recordList) add(r Record, limit int) {
	l.counts[r.Outcome]++
	r.Number = l.total()
	switch {
	case len(l.kept) < limit:
		l.kept = append(l.kept, r)
	case limit > 0:
		l.kept[l.oldest] = r
		l.oldest = (l.oldest + 1) % limit
	}
}

// all returns the records in the order of their numbers.
func (l *recordList) all() []Record {
	return slices.Concat(l.kept[l.oldest:], l.kept[:l.oldest])
}

// latest returns the latest n records, or all if there are fewer, in the order of their
// numbers.
func (l *recordList) latest(n int) []Record {
	n = min(max(0, n), len(l.kept))
	list := make([]Record, 0, n)
	for i := len(l.kept) - n; i < len(l.kept); i++ {
		list = append(list, l.kept[(l.oldest+i)%len(l.kept)])
	}
	return list
}

// Records returns what the server has done with each message so far, in the order in
// which it read them. Barriers are not recorded: see the field Barrier. A message is
// recorded before its answer is sent.
//
// The server keeps the latest MaxRecords records. If it has dropped some, the Number of the
// first record is not 1. Count and Wait count those that were dropped as well.
func (s *Server) Records() []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records.all()
}

// RecordsAfter returns the records of Records whose Number is above n. Together with Wait it
// follows the messages as they arrive, without a copy of all records each time:
//
//	for seen := 0; server.Wait(ctx, seen+1) == nil; {
//		for _, r := range server.RecordsAfter(seen) {
//			seen = r.Number
//		}
//	}
//
// Numbers that are left out are of records that the server has dropped.
func (s *Server) RecordsAfter(n int) []Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.records.latest(s.records.total() - n)
}

// Messages returns the messages of Records that have the outcome.
func (s *Server) Messages(o Outcome) []*apns.Message {
	var ms []*apns.Message
	for _, r := range s.Records() {
		if r.Outcome == o {
			ms = append(ms, r.Message)
		}
	}
	return ms
}

// Count returns how many messages with the outcome were recorded since the start of the
// server or the last ClearRecords. It includes those whose records were dropped.
func (s *Server) Count(o Outcome) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o < 0 || int(o) >= len(s.records.counts) {
		return 0
	}
	return s.records.counts[o]
}

// ClearRecords removes all records, and makes Count, Wait and Record.Number begin at zero
// again. A message that the server is processing may be recorded afterwards.
func (s *Server) ClearRecords() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = recordList{}
}

// Wait waits until the server has recorded n messages since its start or the last
// ClearRecords. Those whose records were dropped count. It returns an error if ctx ends or
// the server is closed before that.
func (s *Server) Wait(ctx context.Context, n int) error {
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.records.total() < n {
		err := ctx.Err()
		if s.closed {
			err = errors.New("server closed")
		}
		if err != nil {
			return fmt.Errorf("apnstest: %d messages recorded, expected %d: %w", s.records.total(), n, err)
		}
		s.changed.Wait()
	}
	return nil
}

func (s *Server) record(r Record) {
	limit := s.MaxRecords
	if limit == 0 {
		limit = defaultMaxRecords
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Time = time.Now()
	s.records.add(r, limit)
	s.changed.Broadcast()
}
