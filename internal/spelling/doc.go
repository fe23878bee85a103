// Package spelling tells how far a word that nobody knows is from the words that
// somebody may have meant.
package spelling
