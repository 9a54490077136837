package h2

// The limits, for the tests that reach them.
const (
	MaxBlock         = maxBlock
	MaxContinuations = maxContinuations
	MaxSettings      = maxSettings
	ReadSize         = readSize
	MaxStreams       = maxStreams
	DefaultStreams   = defaultStreams
	LastStream       = lastStream
	MaxList          = maxList
	MaxDecoded       = maxDecoded
	MaxInformational = maxInformational
	MaxBody          = maxBody
	StreamWindow     = streamWindow
	ConnWindow       = connWindow
	MaxReplies       = maxReplies
	MaxEmpty         = maxEmpty
	MaxOdd           = maxOdd
	MaxDebug         = maxDebug
	MinTable         = minTable
	MaxReused        = maxReused
)

// Kept returns how many bytes are kept to be used again: for what is written, and for
// responses.
func (c *Conn) Kept() (out, responses int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.unused {
		responses += cap(r.Body) + cap(r.fields)
	}
	return cap(c.out) + cap(c.spare), responses
}

// Memory returns how large what a server may try to make grow is: the bytes that
// wait to be written, the slots of the table, and the streams in lists beside it.
func (c *Conn) Memory() (out, slots, listed int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.out), len(c.streams.slots), len(c.reset) + len(c.confirmed) + len(c.held)
}
