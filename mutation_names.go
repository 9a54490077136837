package apns

// A mutation is a mistake that can be made on purpose: see mutated.
type mutation string

const (
	binaryLost  mutation = "binary-lost"  // after a rejection, one message is not resent
	binaryTwice mutation = "binary-twice" // before a rejection, one accepted message is resent
	http2Lost   mutation = "http2-lost"   // what the server did not process is not resent
	http2Twice  mutation = "http2-twice"  // what is in doubt is resent
)
