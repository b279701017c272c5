vqmoe_test(feed data/feed_test.c data)
