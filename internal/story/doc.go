// Package story plays what is told in testdata/*.txt, for tests of decisions.
//
// A story is a row of scenes, an empty line apart; a scene is what happens, a line
// of dashes, and what is then to be seen. What these mean is the test's own matter.
// With the flag -rewrite what is seen is written into the file, for people to
// review as a diff.
package story
