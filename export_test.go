package apns

// SetFirstStream has each HTTP/2 connection begin with a stream of that number, as
// if it had opened all those below it.
func (c *Config) SetFirstStream(n uint32) { c.firstStream = n }
