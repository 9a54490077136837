package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"example.com/apns"
	"example.com/apns/examples/internal/bulk"
)

// A report is what -json writes about a notification. The help describes the fields.
type report struct {
	Line     uint32    `json:"line,omitempty"`
	Token    string    `json:"token,omitempty"`
	Outcome  string    `json:"outcome"`
	Reason   string    `json:"reason,omitempty"`
	Status   int       `json:"status,omitempty"`
	DeadAt   time.Time `json:"dead_at,omitzero"`
	APNsID   string    `json:"apns_id,omitempty"`
	UniqueID string    `json:"apns_unique_id,omitempty"`
	Retry    bool      `json:"retry,omitempty"`
	Error    string    `json:"error,omitempty"`
}

func newReport(m *apns.Message, receipt apns.Receipt, err error) report {
	r := report{
		Outcome:  strings.ReplaceAll(bulk.Outcome(err), " ", "_"),
		APNsID:   receipt.APNsID,
		UniqueID: receipt.UniqueID,
		Retry:    mayPass(err) && !errors.Is(err, apns.ErrInvalid) && !errors.Is(err, apns.ErrExpired),
	}
	if _, err := hex.DecodeString(m.Token); err == nil {
		r.Token = m.Token // anything else may be a secret
	}
	if err == nil {
		return r
	}
	r.Error = bulk.Plain(err)
	if reason, ok := errors.AsType[apns.Reason](err); ok && !errors.Is(err, apns.ErrInvalid) {
		r.Reason = string(reason) // of a server that refuses the sender
	}
	if e, ok := errors.AsType[*apns.PushError](err); ok {
		r.Reason, r.Status, r.DeadAt, r.APNsID = bulk.Reason(e), e.HTTPStatus, e.DeadAt, e.APNsID
		if e.HTTPStatus == 0 {
			r.Status = int(e.Status)
		}
	}
	return r
}

// writeReport writes a report at once. The writer keeps an error.
func writeReport(out *bufio.Writer, r report) {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.Encode(r)
	out.Flush()
}

// mayPass reports whether a later attempt may succeed. Advise calls some messages hopeless
// that may pass all the same: somebody corrects the flags, or a server was at fault for a
// reason that nobody knows.
func mayPass(err error) bool {
	switch apns.Advise(err).Action {
	case apns.ActionForget:
		return false
	case apns.ActionDrop:
		e, isRejected := errors.AsType[*apns.PushError](err)
		switch {
		case !isRejected: // invalid or expired
			return true
		case e.HTTPStatus == 0:
			return errors.Is(e, apns.ReasonInternalServerError) // status 255 and unknown ones
		}
		return e.HTTPStatus >= 500 || e.HTTPStatus == http.StatusTooManyRequests || e.HTTPStatus == http.StatusForbidden
	}
	return err != nil
}
