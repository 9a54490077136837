package page

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// maxWait is how long GET /api/messages waits at most.
const maxWait = time.Minute

// A messageQuery has the query parameters of GET /api/messages beside the filter.
type messageQuery struct{ limit, count, after, wait int }

func readMessageQuery(r *http.Request) (messageQuery, error) {
	q := r.URL.Query()
	limit, err1 := number(q, "limit", 100, 10_000)
	count, err2 := number(q, "count", 0, 10_000)
	after, err3 := number(q, "after", 0, 1<<50)
	wait, err4 := number(q, "wait", 0, int(maxWait.Seconds()))
	err := errors.Join(err1, err2, err3, err4)
	switch {
	case err != nil:
	case !q.Has("wait") && q.Has("count"):
		err = errors.New("count is given without wait, expected for how many seconds to wait as well")
	case q.Has("wait") && !q.Has("count"):
		count = 1
	}
	return messageQuery{limit, count, after, wait}, err
}

// getMessages responds with the latest messages that pass the filter. With count and wait it
// first waits until there are so many, or the time is over.
func (p *Page) getMessages(w http.ResponseWriter, r *http.Request) {
	q, err := readMessageQuery(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Duration(q.wait)*time.Second)
	defer cancel()
	f := follower{page: p, filter: newFilter(r.URL.Query()), seen: q.after, clears: p.floor()}
	all := batch{Messages: []summary{}}
	for over := false; ; {
		b, cleared := f.next(q.limit)
		if cleared {
			all = batch{Messages: []summary{}}
		}
		all.add(b, q.limit)
		missing := q.count - len(all.Messages) - all.Skipped
		if missing <= 0 || over {
			break
		}
		// It looks before a message that it has not seen is dropped.
		missing = min(missing, max(1, p.Server.MaxRecords/2))
		over = p.Server.Wait(ctx, f.seen+missing) != nil // then the next look is the last
	}
	if r.Context().Err() == nil {
		writeJSON(w, http.StatusOK, all)
	}
}

func (p *Page) getMessage(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.Atoi(r.PathValue("number"))
	if err == nil && number > p.floor() {
		records := p.Server.RecordsAfter(number - 1)
		if len(records) > 0 && records[0].Number == number {
			writeJSON(w, http.StatusOK, p.detail(&records[0]))
			return
		}
	}
	writeError(w, http.StatusNotFound, errors.New("the message is unknown, or was dropped or cleared; expected the number of one in GET /api/messages"))
}

// download responds with all messages that pass the filter, one JSON object a line.
func (p *Page) download(w http.ResponseWriter, r *http.Request) {
	f := newFilter(r.URL.Query())
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="messages.jsonl"`)
	out := json.NewEncoder(w)
	last := p.recorded() // later messages are left out, so that there is an end
	for seen := 0; seen < last; {
		records := p.Server.RecordsAfter(max(seen, p.floor()))
		if len(records) == 0 {
			return
		}
		// While the client reads, only a part of the records is kept for it. The part grows
		// with their number, since RecordsAfter copies the rest each time.
		records = slices.Clone(records[:min(len(records), max(1000, len(records)/16))])
		for i := range records {
			if seen = records[i].Number; seen > last {
				return
			}
			if s := summarize(&records[i]); !f.accepts(&s) {
				continue
			}
			d := p.detail(&records[i])
			d.Curl, d.Push, d.Formatted = "", "", "" // they say the same once more
			if out.Encode(d) != nil {
				return
			}
		}
	}
}
