package main

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

	"github.com/nats-io/nats.go/jetstream"

	"example.com/apns"
)

// publishLines publishes messages, one per line in their JSON form. Blank lines are skipped.
// The Nats-Msg-Id is the message's APNsID or, without one, a hash of the line. So a message
// that is published twice within two minutes, because the first confirmation was lost, is in
// the queue once.
func publishLines(ctx context.Context, in io.Reader, out io.Writer, s *settings) error {
	nc, js, err := connect(s.nats, "apns-publish")
	if err != nil {
		return err
	}
	defer nc.Close()
	// Streams that exist stay as they are: the flags of the workers say how.
	_, err = js.Stream(ctx, pushStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		_, err = openStreams(ctx, js, s.queueSettings)
	}
	if err != nil {
		return err
	}
	p := &publisher{js: js}
	err = p.publishLines(in)
	if waitErr := p.wait(); err == nil {
		err = waitErr
	}
	fmt.Fprintf(out, "published %d, duplicates %d\n", p.stored, p.duplicates)
	return err
}

func (p *publisher) publishLines(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 64<<10)
	n := 1
	for ; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var m apns.Message
		if json.Unmarshal(lines.Bytes(), &m) != nil { // whose error may quote what is secret
			return fmt.Errorf("line %d is not the JSON form of a message", n)
		}
		id := m.APNsID
		if id == "" {
			id = fmt.Sprintf("%x", sha256.Sum256(lines.Bytes()))
		}
		if err := p.publish(append([]byte(nil), lines.Bytes()...), id); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil { // which does not quote the line
		return fmt.Errorf("line %d: %w", n, err)
	}
	return nil
}

// A publisher has up to 1,000 messages on their way to JetStream.
type publisher struct {
	js                 jetstream.JetStream
	open               []jetstream.PubAckFuture
	stored, duplicates int
}

func (p *publisher) publish(body []byte, id string) error {
	f, err := p.js.PublishAsync(subjectSend, body, jetstream.WithMsgID(id))
	if err != nil {
		return err
	}
	if p.open = append(p.open, f); len(p.open) == 1000 {
		return p.wait()
	}
	return nil
}

// wait waits until each message is stored or has failed, and returns the first error.
func (p *publisher) wait() (err error) {
	for _, f := range p.open {
		select {
		case ack := <-f.Ok():
			if ack.Duplicate {
				p.duplicates++
			} else {
				p.stored++
			}
		case e := <-f.Err():
			err = cmp.Or(err, e)
		}
	}
	p.open = p.open[:0]
	return err
}
