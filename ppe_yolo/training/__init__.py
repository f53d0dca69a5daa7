"""How a network learns: assignment of objects to anchors, loss, and the Lightning shell around them."""
