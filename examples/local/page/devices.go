package page

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"example.com/apns"
)

const (
	maxDevices = 100_000 // how many devices and topics the API adds at most, and how many feedback records
	maxTopics  = 100     // of a device
	maxTopic   = 1024    // the size of the largest topic in bytes
)

// A device is the JSON form of an apnstest.Device, and of a feedback record.
type device struct {
	Token  string   `json:"token"`
	Topics []string `json:"topics,omitempty"`
	DeadAt deadAt   `json:"dead_at,omitzero"`
}

// Additions are what the API has added to a server. Their number bounds the server's memory,
// and is known without a look at all devices.
type additions struct {
	devices  map[string]map[string]bool // the topics by token
	total    int                        // devices and topics
	feedback int                        // records
	changes  int                        // counts the changes of devices
}

// add adds a device and topics, and returns an error if there are too many.
func (a *additions) add(token string, topics []string) error {
	device, n := a.devices[token], 0
	if device == nil {
		n++
	}
	for i, topic := range topics {
		if !device[topic] && !slices.Contains(topics[:i], topic) {
			n++
		}
	}
	if a.total+n > maxDevices {
		return fmt.Errorf("there are %d devices and topics, expected at most %d: remove some", a.total, maxDevices)
	}
	if a.devices == nil {
		a.devices = make(map[string]map[string]bool)
	}
	if device == nil {
		device = make(map[string]bool)
		a.devices[token] = device
	}
	for _, topic := range topics {
		device[topic] = true
	}
	a.total += n
	a.changes++
	return nil
}

func (a *additions) addFeedback() error {
	if a.feedback >= maxDevices {
		return fmt.Errorf("%d feedback records were added, expected at most that many: DELETE /api/feedback begins again", maxDevices)
	}
	a.feedback++
	return nil
}

// remove removes a device, and reports whether there was one.
func (a *additions) remove(token string) bool {
	topics, known := a.devices[token]
	if known {
		delete(a.devices, token)
		a.total -= 1 + len(topics)
	}
	a.changes++
	return known
}

func (a *additions) removeAll() { a.devices, a.total, a.changes = nil, 0, a.changes+1 }

func (p *Page) devices() []device {
	list := []device{}
	for _, d := range p.Server.Devices() {
		list = append(list, device{d.Token, d.Topics, deadAt{d.DeadAt}})
	}
	return list
}

func (p *Page) feedback() []device {
	list := []device{}
	for _, f := range p.Server.Feedback() {
		list = append(list, device{Token: f.Token, DeadAt: deadAt{f.DeadAt}})
	}
	return list
}

// check returns an error if a field of a device is out of its range. It makes the token lower
// case.
func (d *device) check() error {
	d.Token = strings.ToLower(d.Token)
	most := 2 * apns.MaxTokenSize // what a feedback record can have
	if d.DeadAt.IsZero() {
		most = maxToken
	} else if err := checkTime(d.DeadAt.Time); err != nil {
		return err
	}
	if err := checkToken(d.Token, most); err != nil {
		return err
	}
	if d.Topics != nil && len(d.Topics) == 0 || len(d.Topics) > maxTopics {
		return fmt.Errorf("the device has %d topics, expected 1 to %d", len(d.Topics), maxTopics)
	}
	for _, topic := range d.Topics {
		if topic == "" || len(topic) > maxTopic {
			return fmt.Errorf("a topic has %d bytes, expected 1 to %d", len(topic), maxTopic)
		}
	}
	return nil
}

func (p *Page) postDevice(w http.ResponseWriter, r *http.Request) {
	var d device
	if !read(w, r, &d) {
		return
	}
	err := d.check()
	switch registered, dead := len(d.Topics) > 0, !d.DeadAt.IsZero(); {
	case err != nil:
	case registered && dead:
		err = errors.New("the device has topics and dead_at, expected one of them")
	case !registered && !dead:
		err = errors.New("the device has no topics and no dead_at, expected one of them")
	default:
		err = p.addDevice(&d)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Page) addDevice(d *device) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	dead := !d.DeadAt.IsZero()
	if dead {
		if err := p.added.addFeedback(); err != nil {
			return err
		}
	}
	if err := p.added.add(d.Token, d.Topics); err != nil {
		if dead {
			p.added.feedback--
		}
		return err
	}
	if dead {
		p.Server.Unregister(d.Token, d.DeadAt.Time)
	}
	for _, topic := range d.Topics {
		p.Server.Register(topic, d.Token)
	}
	return nil
}

func (p *Page) deleteDevice(w http.ResponseWriter, r *http.Request) {
	token := strings.ToLower(r.PathValue("token"))
	p.mu.Lock()
	known := p.added.remove(token)
	if known {
		p.Server.ForgetDevices(token)
	}
	p.mu.Unlock()
	if !known {
		writeError(w, http.StatusNotFound, errors.New("the device is unknown, expected the token of one in GET /api/devices"))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Page) forgetDevices() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added.removeAll()
	p.Server.ForgetDevices()
}

func (p *Page) postFeedback(w http.ResponseWriter, r *http.Request) {
	var d device
	if !read(w, r, &d) {
		return
	}
	err := d.check()
	switch {
	case d.Topics != nil:
		err = errors.New("the record has topics, expected only token and dead_at")
	case err != nil:
	case d.DeadAt.IsZero():
		err = errors.New("the record has no dead_at, expected token and dead_at")
	default:
		p.mu.Lock()
		if err = p.added.addFeedback(); err == nil {
			p.Server.AddFeedback(apns.Feedback{Token: d.Token, DeadAt: d.DeadAt.Time})
		}
		p.mu.Unlock()
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// clearFeedback makes records the list of the feedback service.
func (p *Page) clearFeedback(records ...apns.Feedback) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added.feedback = 0
	p.Server.ClearFeedback()
	p.Server.AddFeedback(records...)
	if p.FeedbackCleared != nil {
		p.FeedbackCleared()
	}
}
