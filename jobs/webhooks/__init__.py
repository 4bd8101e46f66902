"""Telling endpoints of tenants what happens: registering them, finding what happened, sending it until they have it.

catalogue   names of events, and what an endpoint may ask for        changes    what a journal's entries mean
envelope    the bodies that are sent                                 dispatch   from the feed to deliveries
signing     secrets and signatures                                   sender     from deliveries to endpoints
schedule    when a failed attempt is repeated                        service    what callers can do with endpoints
"""
